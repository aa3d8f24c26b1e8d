"""`maediff compare`."""

import sys
from pathlib import Path
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
    Resume,
    RunWorkers,
    ScoreSplit,
    Threads,
    parse_seeds,
    print_report,
    read_cli_settings,
)


def compare(
    methods: Annotated[
        list[str],
        typer.Argument(
            metavar="METHOD",
            help="Method to train: {methods}. maediff:r=16 changes a setting for the training, "
            "pddpm@s=48 for the test.",
            show_default=False,
        ),
    ],
    cohort: CohortFolder,
    out: Out,
    preset: Annotated[
        str,
        typer.Option(help="Sizes of the networks and length of the trainings: {presets}."),
    ] = "tiny",
    steps: Annotated[
        int | None,
        typer.Option(help="Training steps of every run. Default: those of the preset.", min=1),
    ] = None,
    max_time: Annotated[
        str | None,
        typer.Option(
            help="Training time of every run, for example 90s, 10m or 1.5h. Default: no limit."
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Training seeds of every method.")] = "0,1,2",
    method_seeds: Annotated[
        list[str] | None,
        typer.Option(
            "--method-seeds",
            metavar="METHOD:SEEDS",
            help="Training seeds of one method, for example ddpm:0,1; can be repeated. "
            "Default: --seeds.",
        ),
    ] = None,
    calibrate_split: CalibrateSplit = "val",
    score_split: ScoreSplit = "test",
    precision: Precision = "fp32",
    workers: RunWorkers = 1,
    threads: Threads = None,
    config: ConfigFile = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="One setting of the trainings, for example t_test=250 or train.steps=2000, or of "
            "the scores: postprocess.*, evaluate.*; can be repeated.",
        ),
    ] = None,
    batch_size: BatchSize = 16,
    resume: Resume = False,
    overwrite: Overwrite = False,
    device: Device = "auto",
    seed: Annotated[
        int,
        typer.Option(
            help="Seed of the evaluation: noise at test and bootstrap. --seeds has the seeds of "
            "the trainings.",
            min=0,
        ),
    ] = 0,
    quiet: Quiet = False,
) -> None:
    """Train methods and seeds with one budget, then score them together in one table."""
    from maediff.core.config import build_config, merge, take_group
    from maediff.core.options import RunOptions
    from maediff.evaluation.compare import Budget, plan_runs
    from maediff.evaluation.compare import compare as run_comparison
    from maediff.evaluation.scoring import ScoringConfig

    with read_cli_settings(config, set_) as settings:
        scoring = dict(take_group(settings, "evaluate"))
        postprocess = merge(
            take_group(scoring, "postprocess"), take_group(settings, "postprocess")
        )
        plan = plan_runs(
            methods,
            parse_seeds(seeds, f"--seeds {seeds}"),
            Budget(preset=preset, steps=steps, max_time=max_time),
            settings,
            dict(_parse_method_seeds(text) for text in method_seeds or []),
        )
        run_comparison(
            plan,
            cohort,
            out,
            calibrate_split=calibrate_split,
            score_split=score_split,
            scoring=build_config(ScoringConfig, scoring, "evaluate"),
            postprocess=postprocess,
            precision=precision,
            command=["maediff", *sys.argv[1:]],
            run=RunOptions(
                device=device,
                seed=seed,
                batch_size=batch_size,
                workers=workers,
                threads=threads,
                resume=resume,
                overwrite=overwrite,
                quiet=quiet,
            ),
        )
    results: Path = out / "eval"
    echo_page((results / "table.md").read_text(encoding="utf-8"))
    print_report(results)


def _parse_method_seeds(text: str) -> tuple[str, list[int]]:
    """Return method and seeds of a text such as `ddpm:0,1`."""
    method, _, seeds = text.partition(":")
    return method, parse_seeds(seeds, f"--method-seeds {text}")
