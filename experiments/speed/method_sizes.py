"""Count parameters and operations of each trained method, as a Markdown table.

    python experiments/speed/method_sizes.py --preset tiny

A multiply-add counts as two operations, as in torch.utils.flop_counter. On a CPU, attention is not
counted; in the preset `paper` it is 0.2 % of a pass. The columns:

    passes a slice           patches x noise levels x draws x steps of the chain, in the preset
    GFLOP a pass             one prediction of the network
    GFLOP a slice            GFLOP a pass x passes a slice
    GFLOP a training step    forward and backward of one slice; each objective is weighted by the
                             share of steps in which it is updated
"""

import argparse
from collections.abc import Callable, Sequence
from copy import deepcopy

import torch
from torch.utils.flop_counter import FlopCounterMode

from maediff.methods.base import Method
from maediff.methods.registry import BASELINES, METHODS, PRESETS, build

TRAINING_STEPS = 1000
"""Length of the training over which updates of an objective are counted."""


def gflop_per_prediction(method: Method, device: str) -> float:
    """Count the prediction of a slice whose brain fits into one patch."""
    size = method.config.size
    brain = torch.zeros(1, 1, size, size, dtype=torch.bool, device=device)
    brain[..., 0, 0] = True
    x = torch.rand(1, 1, size, size, device=device)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        method.predict(x, slice_ids=torch.tensor([0]), seed=0, brain=brain)
    return counter.get_total_flops() / 1e9


def gflop_per_step(method: Method, device: str) -> float:
    """Count forward and backward of one slice, averaged over a training."""
    size = method.config.size
    x, total = torch.rand(1, 1, size, size, device=device), 0.0
    for objective in method.objectives():
        with FlopCounterMode(display=False) as counter:
            loss = objective.loss(x, torch.Generator().manual_seed(0), None)
            torch.autograd.grad(loss, list(objective.parameters))
        updates = sum(objective.is_due(step, TRAINING_STEPS) for step in range(TRAINING_STEPS))
        total += counter.get_total_flops() / 1e9 * updates / TRAINING_STEPS
    return total


def count(function: Callable[[Method, str], float], method: Method) -> float:
    """Call `function` without computing values; on the CPU if shapes depend on values."""
    try:
        return function(deepcopy(method).to("meta"), "meta")
    except (RuntimeError, NotImplementedError):
        return function(method, "cpu")


def table_row(name: str, preset: str) -> str:
    """Return the line of the table for a method."""
    method = build(name, preset).eval()
    config = method.config
    levels = 1
    if hasattr(config, "t_test"):
        levels = config.draws * sum(len(config.timesteps(t)) for t in config.t_test)
    patches = len(method.grid.corners) if hasattr(method, "grid") else 1
    passes = patches * levels
    per_pass = count(gflop_per_prediction, method) / levels
    per_step = count(gflop_per_step, method)
    millions = sum(p.numel() for p in method.parameters()) / 1e6
    return (
        f"| {name} | {millions:.2f} M | {passes} | {per_pass:.2f} | {per_pass * passes:.2f} "
        f"| {per_step:.2f} |"
    )


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--preset", choices=sorted(PRESETS), default="tiny", help="default: %(default)s"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    args = build_parser().parse_args(argv)
    torch.manual_seed(0)
    print(
        f"| {args.preset} | parameters | passes a slice | GFLOP a pass | GFLOP a slice "
        "| GFLOP a training step |"
    )
    print("|---|---|---|---|---|---|")
    for name in METHODS:
        if name not in BASELINES:
            print(table_row(name, args.preset), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
