"""Parameters and operations of every trained method, as a markdown table: `python experiments/method_sizes.py tiny`.

GFLOP count a multiply-add as two, as torch.utils.flop_counter does; on a CPU it does not see attention, which is 0.2 %
of `paper` (pddpm against ddpm). "a pass" is one run of what predicts, "a slice" all that a slice takes at test with the
preset's settings (patches x noise levels x draws x steps of the chain), "a training step" forward and backward of one
slice, each objective weighed by the share of steps in which it is stepped.
"""

import sys
from collections.abc import Callable
from copy import deepcopy

import torch
from torch.utils.flop_counter import FlopCounterMode

from maediff.methods import Method
from maediff.methods.registry import BASELINES, METHODS, build


def gflop_a_pass(method: Method, device: str) -> float:
    """Of a slice with brain in one corner only, which one patch covers."""
    size = method.config.size  # type: ignore[union-attr]
    brain = torch.zeros(1, 1, size, size, dtype=torch.bool, device=device)
    brain[..., 0, 0] = True
    x = torch.rand(1, 1, size, size, device=device)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        method.predict(x, slice_ids=torch.tensor([0]), seed=0, brain=brain)
    return counter.get_total_flops() / 1e9


def gflop_a_step(method: Method, device: str, steps: int = 1000) -> float:
    """Of one slice."""
    x, total = torch.rand(1, 1, *2 * [method.config.size], device=device), 0.0  # type: ignore[union-attr]
    for objective in method.objectives():
        with FlopCounterMode(display=False) as counter:
            loss = objective.loss(x, torch.Generator().manual_seed(0), None)
            torch.autograd.grad(loss, list(objective.parameters))
        total += (
            counter.get_total_flops()
            / 1e9
            * sum(objective.due(step, steps) for step in range(steps))
            / steps
        )
    return total


def counted(count: Callable[[Method, str], float], method: Method) -> float:
    """Without computing anything where shapes do not depend on values, else on the CPU."""
    try:
        return count(deepcopy(method).to("meta"), "meta")
    except (RuntimeError, NotImplementedError):
        return count(method, "cpu")


def main() -> None:
    preset = sys.argv[1] if len(sys.argv) > 1 else "tiny"
    torch.manual_seed(0)
    print(
        f"| {preset} | parameters | passes a slice | GFLOP a pass | GFLOP a slice | GFLOP a training step |"
    )
    print("|---|---|---|---|---|---|")
    for name in METHODS:
        if name in BASELINES:
            continue
        method = build(name, preset).eval()
        config = method.config
        noised = [
            len(config.timesteps(t))
            for t in getattr(config, "t_test", ())
            for _ in range(config.draws)
        ]
        levels = sum(noised) if noised else 1
        passes = (len(method.grid.corners) if hasattr(method, "grid") else 1) * levels
        once = counted(gflop_a_pass, method) / levels
        millions = sum(p.numel() for p in method.parameters()) / 1e6
        step = counted(gflop_a_step, method)
        row = f"| {name} | {millions:.2f} M | {passes} | {once:.2f} | {once * passes:.2f} | {step:.2f} |"
        print(row, flush=True)


if __name__ == "__main__":
    main()
