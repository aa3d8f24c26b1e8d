"""`maediff benchmark`."""

from pathlib import Path
from typing import Annotated

import typer

from maediff.cli.options import Device, Quiet, Seed


def benchmark(
    preset: Annotated[str, typer.Option(help="paper, small or tiny.")] = "small",
    method: Annotated[str, typer.Option(help="maediff or pddpm.")] = "maediff",
    json: Annotated[Path | None, typer.Option(help="Write the figures there.")] = None,
    precision: Annotated[
        str,
        typer.Option(
            help="Of the prediction: fp32, bf16, or auto: bf16 where the processor has it."
        ),
    ] = "fp32",
    repeats: Annotated[
        int, typer.Option(help="Timed repetitions of each loop, in turn.", min=1)
    ] = 3,
    device: Device = "auto",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Scans per minute, memory, and the ratio to the reference loop (one patch at a time, fp32)."""
    from maediff.core.files import write_json
    from maediff.detection.benchmark import benchmark as run

    result = run(
        method, preset=preset, precision=precision, repeats=repeats, device=device, seed=seed
    )
    if json:
        write_json(json, result)
    if not quiet:
        for key, value in result.items():
            typer.echo(f"{key:24} {value}")
