"""The command `train`."""

from typing import Annotated

import typer

from maediff.cli.shared.errors import echo
from maediff.cli.shared.options import (
    CohortFolder,
    ConfigFile,
    Device,
    Out,
    Overwrite,
    Quiet,
    Resume,
    Seed,
    Settings,
    Threads,
    print_report,
    read_cli_settings,
)


def train(
    method: Annotated[str, typer.Argument(help="Method to train: {methods}.")],
    cohort: CohortFolder,
    out: Out,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Sizes of the networks and length of the training: {presets}; auto is tiny on a "
            "CPU and small on a GPU. Default: the preset of --init, or auto.",
            show_default=False,
        ),
    ] = None,
    max_time: Annotated[
        str | None, typer.Option(help="Stop and save after this time: 90s, 10m, 1.5h.")
    ] = None,
    init: Annotated[
        str | None, typer.Option(help="Run or shipped model whose weights to start from.")
    ] = None,
    config: ConfigFile = None,
    set_: Settings = None,
    threads: Threads = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    device: Device = "auto",
    devices: Annotated[
        int,
        typer.Option(
            help="Devices of each node, each in a process of its own; train.batch_size is the "
            "batch of all devices together.",
            min=1,
        ),
    ] = 1,
    nodes: Annotated[
        int, typer.Option(help="Machines; more than one needs torchrun or srun.", min=1)
    ] = 1,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Train a method on the healthy slices of a cohort's train split."""
    from maediff.core.options import RunOptions
    from maediff.report import LiveReport
    from maediff.training.train import train as train_method

    with read_cli_settings(config, set_) as settings:
        result = train_method(
            method,
            cohort,
            out,
            preset=preset,
            settings=settings,
            max_time=max_time,
            init=init,
            on_checkpoint=LiveReport(),
            run=RunOptions(
                device=device,
                seed=seed,
                threads=threads,
                quiet=quiet,
                overwrite=overwrite,
                resume=resume,
                devices=devices,
                nodes=nodes,
            ),
        )
    if result.get("rank", 0):
        return  # the first process prints
    loss = result["best_val_loss"]
    validation = "no validation loss" if loss is None else f"validation loss {loss:.4f}"
    steps = f"{result['step']} of {result['steps']} steps"
    echo(f"run: {out}  ({steps}, {result['seconds']:.0f} s, {validation})")
    if result["step"] < result["steps"]:
        echo("stopped before the last step; the same command with --resume continues from there")
    print_report(out)
