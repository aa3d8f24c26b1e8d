"""Commands that make a model: `train` and `calibrate`; and `models`, which lists those that come along."""

from pathlib import Path
from typing import Annotated

import typer

from maediff.cli.options import (
    CohortFolder,
    ConfigFile,
    Device,
    NoDevice,
    NoQuiet,
    NoSeed,
    Out,
    Overwrite,
    Quiet,
    Resume,
    Seed,
    Settings,
    no_more,
    settings_of,
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

    with settings_of(config, set_) as settings:
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


def calibrate(
    model: Annotated[
        str,
        typer.Argument(help="Run folder, or name of `maediff models`; RUN@s=48 sets a setting."),
    ],
    cohort: Annotated[
        Path, typer.Option(help="A cohort made by `maediff preprocess`, of healthy scans.")
    ],
    out: Out,
    max_scans: Annotated[
        int, typer.Option(help="Healthy scans used at most, one a person.", min=1)
    ] = 200,
    config: ConfigFile = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="key=value of postprocess.")
    ] = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """A model as it is, with thresholds from your own healthy scans."""
    from maediff.anomaly.thresholds import smallest_alpha
    from maediff.models.calibrate import recalibrate as run

    with settings_of(config, set_) as settings:
        post = settings.pop("postprocess", {})
        no_more(settings, "postprocess.*; those of the model follow it: RUN@t_test=125")
        found = run(
            model,
            cohort,
            out,
            post=post,
            max_scans=max_scans,
            device=device,
            seed=seed,
            overwrite=overwrite,
        )
    if not quiet:
        typer.echo(
            f"calibrated on {found['n_scans']} healthy scans; --scan-fpr from "
            f"{smallest_alpha(found['n_scans']):.4g} can be promised"
        )
    typer.echo(f"model: {out}")


def models(device: NoDevice = "auto", seed: NoSeed = 0, quiet: NoQuiet = False) -> None:
    """List the models that `detect --model NAME` and `train --init NAME` take by name."""
    from maediff.models.catalogue import describe, models

    del device, seed, quiet
    found = [describe(folder, card) for folder, card in models()]
    typer.echo(
        "\n\n".join(found)
        or "no model comes with this installation; train one with `maediff train`, or name "
        "a folder of models in MAEDIFF_MODELS"
    )
