"""`maediff compare`."""

import sys
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
    Resume,
    RunWorkers,
    ScoreSplit,
    Seed,
    Settings,
    parse_seeds,
    print_report,
    read_cli_settings,
)


def compare(
    methods: Annotated[
        list[str],
        typer.Argument(
            help="Methods to train; maediff:r=16 adds a setting in training, pddpm@s=48 one at test."
        ),
    ],
    cohort: CohortFolder,
    out: Out,
    preset: Annotated[str, typer.Option(help="paper, small or tiny.")] = "tiny",
    steps: Annotated[
        int | None, typer.Option(help="Steps of every run; default: the preset's.", min=1)
    ] = None,
    max_time: Annotated[
        str | None, typer.Option(help="Training time of every run: 90s, 10m, 1.5h.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of every method.")] = "0,1,2",
    method_seeds: Annotated[
        list[str] | None,
        typer.Option("--method-seeds", help="Seeds of one method, e.g. ddpm:0 or ddpm:0,1."),
    ] = None,
    calibrate_split: CalibrateSplit = "val",
    score_split: ScoreSplit = "test",
    precision: Annotated[str, typer.Option(help="Of scoring: fp32, bf16, or auto.")] = "fp32",
    workers: RunWorkers = 1,
    config: ConfigFile = None,
    set_: Settings = None,
    batch_size: BatchSize = 16,
    resume: Resume = False,
    overwrite: Overwrite = False,
    device: Device = "auto",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Train every method and seed with one budget, then score them together: one command remakes a table."""
    from maediff.anomaly.postprocess import PostprocessConfig
    from maediff.core.config import build_config, merge
    from maediff.evaluation.compare import Budget, plan
    from maediff.evaluation.compare import compare as run
    from maediff.evaluation.scoring import ScoringConfig

    own_seeds = {
        text.partition(":")[0]: parse_seeds(text.partition(":")[2], text)
        for text in method_seeds or []
    }
    budget = Budget(preset, steps, max_time)
    with read_cli_settings(config, set_) as settings:
        scored = dict(settings.pop("evaluate", {}))
        groups = [group.pop("postprocess", {}) for group in (scored, settings)]
        for group in groups:  # before hours of training
            build_config(PostprocessConfig, group, "postprocess")
        post = merge(*groups)
        scoring = build_config(ScoringConfig, scored, "evaluate")
        planned = plan(
            methods, parse_seeds(seeds, f"--seeds {seeds}"), budget, settings, own_seeds
        )
    run(
        planned,
        budget,
        cohort,
        out,
        calibrate_split=calibrate_split,
        score_split=score_split,
        config=scoring,
        post=post,
        precision=precision,
        workers=workers,
        batch_size=batch_size,
        resume=resume,
        overwrite=overwrite,
        device=device,
        seed=seed,
        command=["maediff", *sys.argv[1:]],
        quiet=quiet,
    )
    typer.echo((out / "eval" / "table.md").read_text(encoding="utf-8"))
    print_report(out / "eval")
