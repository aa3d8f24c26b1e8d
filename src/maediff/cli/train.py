"""Commands that make a model: `train` and `calibrate`; and `models`, which lists those that come along."""

from typing import Annotated

import typer

from maediff.cli.options import (
    CohortFolder,
    ConfigFile,
    Device,
    Out,
    Overwrite,
    Quiet,
    Resume,
    Seed,
    Settings,
    read_cli_settings,
)


def train(
    method: Annotated[
        str, typer.Argument(help="maediff, pddpm, ddpm, anoddpm, ae, vae, svae, dae or fanogan.")
    ],
    cohort: CohortFolder,
    out: Out,
    preset: Annotated[
        str | None,
        typer.Option(
            help="paper, small or tiny; default: that of --init, or small.", show_default=False
        ),
    ] = None,
    max_time: Annotated[
        str | None, typer.Option(help="Stop and save after 90s, 10m, 1.5h.")
    ] = None,
    init: Annotated[str | None, typer.Option(help="Run or shipped model to start from.")] = None,
    config: ConfigFile = None,
    set_: Settings = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    device: Device = "auto",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Learn what is healthy from the train split of a cohort."""
    from maediff.training.train import train as run

    with read_cli_settings(config, set_) as settings:
        result = run(
            method,
            cohort,
            out,
            preset=preset,
            settings=settings,
            max_time=max_time,
            resume=resume,
            overwrite=overwrite,
            seed=seed,
            init=init,
            device=device,
            quiet=quiet,
        )
    best = result["best_val_loss"]
    typer.echo(
        f"run: {out}  ({result['step']} of {result['steps']} steps, {result['seconds']:.0f} s"
        + (
            f", validation loss {best:.4f})"
            if best is not None
            else ", no val subject to validate on)"
        )
    )
    if result["step"] < result["steps"]:
        typer.echo(
            "stopped before the last step: the same command with --resume goes on exactly there"
        )
