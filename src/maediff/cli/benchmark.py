"""`maediff benchmark`."""

from pathlib import Path
from typing import Annotated

import typer

from maediff.cli.errors import echo
from maediff.cli.options import Device, Precision, Seed


def benchmark(
    preset: Annotated[str, typer.Option(help="Size of the network: {presets}.")] = "small",
    method: Annotated[str, typer.Option(help="Method: maediff or pddpm.")] = "maediff",
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the figures to this file.")
    ] = None,
    precision: Precision = "fp32",
    repeats: Annotated[
        int, typer.Option(help="Number of timed runs; medians are reported.", min=1)
    ] = 3,
    device: Device = "auto",
    seed: Seed = 0,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print no figures; use it with --json.")
    ] = False,
) -> None:
    """Measure speed and memory on a synthetic scan, beside a plain loop over single patches."""
    from maediff.core.files import write_json
    from maediff.detection.benchmark import benchmark as run_benchmark

    result = run_benchmark(
        method, preset=preset, precision=precision, repeats=repeats, device=device, seed=seed
    )
    if json:
        write_json(json, result)
    if not quiet:
        for key, value in result.items():
            echo(f"{key:24} {value}")
