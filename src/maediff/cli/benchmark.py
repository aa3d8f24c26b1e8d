"""`maediff benchmark`."""

from pathlib import Path
from typing import Annotated

import typer

from maediff.cli.shared.errors import echo
from maediff.cli.shared.options import Device, Precision, ScanWorkers, Seed, Threads
from maediff.core.errors import InputError


def benchmark(
    preset: Annotated[str, typer.Option(help="Size of the network: {presets}.")] = "small",
    method: Annotated[str, typer.Option(help="Method: maediff or pddpm.")] = "maediff",
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the figures to this file.")
    ] = None,
    scans: Annotated[
        str,
        typer.Option(
            metavar="N,N",
            help="Numbers of scans in the measured calls of `detect`: 1,4,16 also measures calls "
            "with more scans, which takes several minutes; 0 for none.",
        ),
    ] = "1",
    workers: ScanWorkers = 1,
    threads: Threads = None,
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
    """Measure speed and memory: the network beside a plain loop, and complete calls of detect.

    The first figures are those of a network with random weights. The table after them shows
    `maediff detect` with the model t1 on synthetic 1 mm scans, stripped and with skull.
    """
    from maediff.core.files import write_json
    from maediff.core.processes.threads import use_threads
    from maediff.detection.benchmark import benchmark as run_benchmark
    from maediff.detection.benchmark_detect import benchmark_detect, format_table

    counts = _parse_counts(scans)
    use_threads(threads)
    result = run_benchmark(
        method, preset=preset, precision=precision, repeats=repeats, device=device, seed=seed
    )
    if not quiet:
        for key, value in result.items():
            echo(f"{key:24} {value}")
    if counts:
        result["detect"] = benchmark_detect(
            counts, workers=workers, threads=threads, device=device
        )
        if not quiet:
            for line in format_table(result["detect"]).splitlines():
                echo(line)
    if json:
        write_json(json, result)


def _parse_counts(text: str) -> list[int]:
    """Return the numbers of a text such as "1,4,16"; none for "0".

    Raises:
        InputError: something else than whole numbers.
    """
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"`scans={text}`: give whole numbers such as 1,4,16, or 0") from None
    return [] if counts == [0] else counts
