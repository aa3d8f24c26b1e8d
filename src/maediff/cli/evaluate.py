"""`maediff evaluate`."""

from typing import Annotated

import typer

from maediff.cli.shared.errors import echo_page
from maediff.cli.shared.options import (
    BatchSize,
    CalibrateSplit,
    CohortFolder,
    ConfigFile,
    Device,
    Out,
    Overwrite,
    Precision,
    Quiet,
    RunWorkers,
    ScoreSplit,
    Seed,
    ShardText,
    Threads,
    parse_shard,
    print_report,
    print_shard,
    read_cli_settings,
)


def evaluate(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            help="Run folder, shipped model or folder of anomaly maps. RUN@s=48 changes a setting "
            "for the test; RUN+RUN averages the references of models.",
            show_default=False,
        ),
    ],
    cohort: CohortFolder,
    out: Out,
    calibrate_split: CalibrateSplit = "val",
    score_split: ScoreSplit = "test",
    precision: Precision = "fp32",
    workers: RunWorkers = 1,
    threads: Threads = None,
    shard: ShardText = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a stopped shard; needs --shard.")
    ] = False,
    config: ConfigFile = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="One setting: postprocess.*, fpr, scan_fpr or n_snapshots; can be repeated.",
        ),
    ] = None,
    batch_size: BatchSize = 16,
    overwrite: Overwrite = False,
    device: Device = "auto",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Score models or anomaly maps, and the simple baselines, on a cohort."""
    from maediff.core.config import build_config, take_group
    from maediff.core.options import RunOptions
    from maediff.evaluation.evaluate import evaluate as run_evaluation
    from maediff.evaluation.scoring import ScoringConfig

    part = parse_shard(shard)
    with read_cli_settings(config, set_) as settings:
        postprocess = take_group(settings, "postprocess")
        result = run_evaluation(
            runs,
            cohort,
            out,
            calibrate_split=calibrate_split,
            score_split=score_split,
            scoring=build_config(ScoringConfig, settings, "evaluate"),
            postprocess=postprocess,
            precision=precision,
            run=RunOptions(
                device=device,
                seed=seed,
                batch_size=batch_size,
                workers=workers,
                threads=threads,
                resume=resume,
                overwrite=overwrite,
                quiet=quiet,
                shard=part,
            ),
        )
    if part:
        print_shard(part, len(result["scans"]), out)
        return
    echo_page((out / "table.md").read_text(encoding="utf-8"))
    print_report(out)
