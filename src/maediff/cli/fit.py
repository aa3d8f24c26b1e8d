"""`maediff fit`."""

from typing import Annotated

import typer

from maediff.cli.shared.errors import echo
from maediff.cli.shared.options import (
    ConfigFile,
    Device,
    Inputs,
    Modality,
    MoreInputs,
    Out,
    Overwrite,
    Quiet,
    Resume,
    ScanWorkers,
    Seed,
    Settings,
    collect_inputs,
    exit_if_failed,
    read_cli_settings,
)


def fit(
    out: Out,
    inputs: Inputs = None,
    more: MoreInputs = None,
    modality: Modality = None,
    method: Annotated[str, typer.Option(help="Method: {methods}.")] = "maediff",
    preset: Annotated[
        str | None,
        typer.Option(
            help="Sizes of the networks and length of the training: {presets}; auto is tiny on a "
            "CPU and small on a GPU. Default: auto.",
            show_default=False,
        ),
    ] = None,
    max_time: Annotated[
        str | None, typer.Option(help="Stop the training after this time: 90s, 10m, 1.5h.")
    ] = None,
    workers: ScanWorkers = 1,
    config: ConfigFile = None,
    set_: Settings = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    device: Device = "auto",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Make a model from healthy scans: preprocess, train and calibrate, with a report."""
    from maediff.core.options import RunOptions
    from maediff.models.model import read_model
    from maediff.models.thresholds import Thresholds, describe_healthy
    from maediff.report import write_report
    from maediff.training.fit import fit as fit_model

    with read_cli_settings(config, set_) as settings:
        report = fit_model(
            collect_inputs(inputs, more),
            out,
            method=method,
            modality=modality,
            preset=preset,
            settings=settings,
            max_time=max_time,
            run=RunOptions(
                device=device,
                seed=seed,
                workers=workers,
                resume=resume,
                overwrite=overwrite,
                quiet=quiet,
            ),
        )
    echo(f"scans: {write_report(report.cohort)}")
    echo(
        f"model: {report.model}  ({report.step} of {report.steps} steps; {report.n_train} people "
        f"trained, {report.n_calibration} calibrated)"
    )
    thresholds = read_model(report.model).thresholds
    if isinstance(thresholds, Thresholds):
        echo(f"healthy scans: {describe_healthy(thresholds.default().origin)}")
    echo(f"report: {write_report(report.model)}")
    if report.step < report.steps:
        echo("stopped before the last step; the same command with --resume continues from there")
    exit_if_failed(report.n_failed)
