"""`maediff calibrate`."""

from pathlib import Path
from typing import Annotated

import typer

from maediff.cli.shared.errors import echo
from maediff.cli.shared.options import (
    ConfigFile,
    Device,
    Out,
    Overwrite,
    Quiet,
    Seed,
    read_cli_settings,
    refuse_settings,
)


def calibrate(
    model: Annotated[
        str,
        typer.Argument(
            help="Run folder, or name from `maediff models`; RUN@s=48 changes a setting."
        ),
    ],
    cohort: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER", help="Cohort of healthy scans, made by `maediff preprocess`."
        ),
    ],
    out: Out,
    max_scans: Annotated[
        int, typer.Option(help="Number of healthy scans at most, one per person.", min=1)
    ] = 200,
    config: ConfigFile = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Setting of postprocess, for example postprocess.median_size=3; can be repeated.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Copy a model, with thresholds from your own healthy scans."""
    from maediff.anomaly.sensitivity import SENSITIVITIES
    from maediff.anomaly.thresholds import smallest_alpha
    from maediff.core.config import take_group
    from maediff.core.options import RunOptions
    from maediff.models.calibrate import calibrate as calibrate_model
    from maediff.models.model import read_model
    from maediff.models.thresholds import describe_healthy

    with read_cli_settings(config, set_) as settings:
        post = take_group(settings, "postprocess")
        refuse_settings(
            settings, "postprocess.*; settings of the model follow its name: RUN@t_test=125"
        )
        calibration = calibrate_model(
            model,
            cohort,
            out,
            postprocess=post,
            max_scans=max_scans,
            run=RunOptions(device=device, seed=seed, overwrite=overwrite, quiet=quiet),
        )
    if not quiet:
        echo(
            f"calibrated on {calibration['n_scans']} healthy scans; --scan-fpr can be "
            f"{smallest_alpha(calibration['n_scans']):.4g} or more"
        )
        thresholds = read_model(out).thresholds
        for level in SENSITIVITIES if calibration.get("sensitivity") else ():
            threshold = thresholds.at_sensitivity(level)
            echo(f"sensitivity {level}: {describe_healthy(threshold.origin)}")
    echo(f"model: {out}")
