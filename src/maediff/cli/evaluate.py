"""Commands that measure: `evaluate`, `compare` and `benchmark`."""

from typing import Annotated

import typer

from maediff.cli.options import (
    BatchSize,
    CalibrateSplit,
    CohortFolder,
    ConfigFile,
    Device,
    Out,
    Overwrite,
    Quiet,
    RunWorkers,
    ScoreSplit,
    Seed,
    print_report,
    read_cli_settings,
)


def evaluate(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Run folders, or folders of anomaly maps; RUN@s=48 sets a setting, RUN+RUN a mean."
        ),
    ],
    cohort: CohortFolder,
    out: Out,
    calibrate_split: CalibrateSplit = "val",
    score_split: ScoreSplit = "test",
    precision: Annotated[
        str, typer.Option(help="fp32, bf16, or auto: bf16 where the processor has it.")
    ] = "fp32",
    workers: RunWorkers = 1,
    config: ConfigFile = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value of postprocess, or fpr, scan_fpr, n_snapshots."),
    ] = None,
    batch_size: BatchSize = 16,
    overwrite: Overwrite = False,
    device: Device = "auto",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Score runs, and the simple baselines beside them, on a cohort."""
    from maediff.core.config import build_config
    from maediff.core.device import resolve_device
    from maediff.evaluation.evaluate import evaluate as run
    from maediff.evaluation.scoring import ScoringConfig

    with read_cli_settings(config, set_) as settings:
        post = settings.pop("postprocess", {})
        scoring = build_config(ScoringConfig, settings, "evaluate")
    run(
        runs,
        cohort,
        out,
        calibrate_split=calibrate_split,
        score_split=score_split,
        config=scoring,
        post=post,
        precision=precision,
        workers=workers,
        batch_size=batch_size,
        overwrite=overwrite,
        device=resolve_device(device),
        seed=seed,
        quiet=quiet,
    )
    typer.echo((out / "table.md").read_text(encoding="utf-8"))
    print_report(out)
