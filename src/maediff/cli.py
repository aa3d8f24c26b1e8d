"""The command line: `maediff COMMAND --help`. Heavy packages are imported inside the commands, so help is instant."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from maediff import __version__
from maediff.errors import InputError

app = typer.Typer(
    name="maediff",
    help="Learn healthy brains, redraw a scan as if healthy, show what is abnormal. For research, not diagnosis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Inputs = Annotated[
    list[Path] | None,
    typer.Argument(help="NIfTI file, folder of them, DICOM folder, BIDS dataset or manifest CSV.", show_default=False),
]
MoreInputs = Annotated[list[Path] | None, typer.Option("--input", "-i", help="The same as INPUT.", show_default=False)]
Out = Annotated[Path, typer.Option("--out", "-o", help="Output folder; must not exist.", show_default=False)]
Modality = Annotated[str | None, typer.Option(help="T1w, T2w or FLAIR; default: from the file names.")]
Series = Annotated[str | None, typer.Option(help="Number or UID of the DICOM series to take.", show_default=False)]
LayoutName = Annotated[str, typer.Option("--layout", help="ixi, brats, mslub; auto: recognised; plain: ignored.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where a stopped run left off.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Empty an existing output folder first.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.", min=0)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar, results only.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="key=value, e.g. t_test=250 or train.steps=2000.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file of settings; --set wins.")]
BatchSize = Annotated[int, typer.Option(help="Forward passes at once.", min=1)]


def _inputs(inputs: list[Path] | None, more: list[Path] | None) -> list[Path]:
    found = [*(inputs or []), *(more or [])]
    if not found:
        raise InputError("no INPUT: give a NIfTI file, a folder of them or of DICOM, a BIDS dataset or a manifest CSV")
    return found


@contextmanager
def _settings(config: Path | None, pairs: list[str] | None) -> Iterator[dict[str, Any]]:
    """Those of FILE with those of --set on top; what is wrong with them is said with FILE's name."""
    from maediff.settings import SettingsError, merge, parse_settings, read_settings

    try:
        yield merge(read_settings(config) if config else {}, parse_settings(pairs or []))
    except SettingsError as error:
        raise InputError(f"{error}; given in {config} or on the command line" if config else str(error)) from None


def _version(value: bool) -> None:
    if value:
        typer.echo(f"maediff {__version__}")
        raise typer.Exit


@app.callback()
def _main(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False) -> None:
    """Options before the command."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder.")] = Path("demo"),
    train: Annotated[bool, typer.Option("--train", help="Train a model instead of using a shipped one.")] = False,
    overwrite: Overwrite = False,
    device: Device = "auto",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Phantoms -> shipped model -> calibrate -> detect -> evaluate -> report. No data, no GPU, no network."""
    from maediff.demo import demo as run

    page = run(out, train=train, overwrite=overwrite, device=device, seed=seed, quiet=quiet)
    if quiet:
        typer.echo(f"report: {page}")


@app.command()
def preprocess(
    out: Out,
    inputs: Inputs = None,
    more: MoreInputs = None,
    modality: Modality = None,
    series: Series = None,
    layout: LayoutName = "auto",
    fold: Annotated[int, typer.Option(help="Of IXI's healthy scans: which of five blocks is val.", min=0, max=4)] = 0,
    manifest_only: Annotated[bool, typer.Option("--manifest-only", help="Write OUT/manifest.csv, no images.")] = False,
    lesion_free_margin: Annotated[int, typer.Option(help="Slices beside a lesion left out of training.", min=0)] = 1,
    like: Annotated[
        str | None, typer.Option(help="Run or shipped model: prepare scans as its own were; --config and --set win.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Scans done at once, a process each.", min=1)] = 1,
    config: ConfigFile = None,
    set_: Settings = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    device: Device = "auto",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Bring scans onto the model's grid: a cohort to train and evaluate on."""
    if manifest_only:
        from maediff.files import check_apart, fresh_folder
        from maediff.sources import find_sources, write_manifest

        given = _inputs(inputs, more)
        refs = find_sources(given, modality, layout=layout, series=series, fold=fold, unique=True)
        check_apart(out, [*given, *(file for ref in refs for file in ref.files)])
        write_manifest(fresh_folder(out, overwrite=overwrite, resume=resume) / "manifest.csv", refs)
        typer.echo(f"manifest of {len(refs)} scans: {out / 'manifest.csv'}")
        return
    from maediff.grid import GridConfig
    from maediff.intensities import NormaliseConfig
    from maediff.preprocess import preprocess as run
    from maediff.settings import build_config, merge
    from maediff.steps import steps_config

    known: dict[str, Any] = {}
    if like:
        from maediff.run_folder import prepared_for

        known = prepared_for(like)
    with _settings(config, set_) as changes:
        settings = merge(known, changes)
        grid = build_config(GridConfig, settings.pop("grid", {}), "grid")
        normalise = build_config(NormaliseConfig, settings.pop("normalise", {}), "normalise")
        of_steps = [key for key in ("brain", "bias", "registration", "qc") if key in settings]
        steps = steps_config({key: settings.pop(key) for key in of_steps})
        _no_more(settings, "grid.*, normalise.*, brain.*, bias.*, registration.*, qc.*")
    failed = run(
        _inputs(inputs, more), out, modality=modality, layout=layout, series=series, fold=fold,
        lesion_free_margin=lesion_free_margin, grid=grid, normalise=normalise, steps=steps, workers=workers,
        resume=resume, overwrite=overwrite, quiet=quiet,
    )  # fmt: skip
    del device, seed  # taken by every command; nothing here is random or runs on a GPU
    if (out / "cohort.json").is_file():
        from maediff.report import write_report

        typer.echo(f"cohort: {out}")
        typer.echo(f"report: {write_report(out)}")
    else:
        typer.echo(f"no cohort: every scan failed, see {out / 'qc.csv'}")
    import csv

    with (out / "qc.csv").open(newline="", encoding="utf-8") as file:
        status = {row["name"]: row["status"] for row in csv.DictReader(file)}
    lost, flagged = ([name for name, word in status.items() if word == kind] for kind in ("failed", "flagged"))
    _close(lost, flagged, out / "qc.csv")
    _exit(failed)


@app.command()
def train(
    method: Annotated[str, typer.Argument(help="maediff, pddpm, ddpm, anoddpm, ae, vae, svae, dae or fanogan.")],
    cohort: Annotated[Path, typer.Option(help="A cohort made by `maediff preprocess`.")],
    out: Out,
    preset: Annotated[
        str | None, typer.Option(help="paper, small or tiny; default: that of --init, or small.", show_default=False)
    ] = None,
    max_time: Annotated[str | None, typer.Option(help="Stop and save after 90s, 10m, 1.5h.")] = None,
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
    from maediff.train import train as run

    with _settings(config, set_) as settings:
        result = run(
            method, cohort, out, preset=preset, settings=settings, max_time=max_time, resume=resume,
            overwrite=overwrite, seed=seed, init=init, device=device, quiet=quiet,
        )  # fmt: skip
    best = result["best_val_loss"]
    typer.echo(
        f"run: {out}  ({result['step']} of {result['steps']} steps, {result['seconds']:.0f} s"
        + (f", validation loss {best:.4f})" if best is not None else ", no val subject to validate on)")
    )
    if result["step"] < result["steps"]:
        typer.echo("stopped before the last step: the same command with --resume goes on exactly there")


@app.command()
def calibrate(
    model: Annotated[str, typer.Argument(help="Run folder, or name of `maediff models`; RUN@s=48 sets a setting.")],
    cohort: Annotated[Path, typer.Option(help="A cohort made by `maediff preprocess`, of healthy scans.")],
    out: Out,
    max_scans: Annotated[int, typer.Option(help="Healthy scans used at most, one a person.", min=1)] = 200,
    config: ConfigFile = None,
    set_: Settings = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """A model as it is, with thresholds from your own healthy scans."""
    from maediff.calibration import smallest_alpha
    from maediff.recalibrate import recalibrate as run

    with _settings(config, set_) as settings:
        post = settings.pop("postprocess", {})
        _no_more(settings, "postprocess.*; those of the model follow it: RUN@t_test=125")
        found = run(model, cohort, out, post=post, max_scans=max_scans, device=device, seed=seed, overwrite=overwrite)
    if not quiet:
        typer.echo(f"calibrated on {found['n_scans']} healthy scans; --scan-fpr from "
                   f"{smallest_alpha(found['n_scans']):.4g} can be promised")  # fmt: skip
    typer.echo(f"model: {out}")


@app.command()
def detect(
    out: Out,
    inputs: Inputs = None,
    more: MoreInputs = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Run folder, name of `maediff models`, or hf:ORG/NAME; RUN@t_test=125 sets a test setting, "
            "RUN+RUN a mean; default: the shipped model for the contrast.",
            show_default=False,
        ),
    ] = None,
    modality: Modality = None,
    series: Series = None,
    layout: LayoutName = "auto",
    threshold: Annotated[
        float | None, typer.Option(help="Of the anomaly map, 0 to 1; usually 0.02 to 0.1.", min=0, max=1)
    ] = None,
    fpr: Annotated[
        float | None,
        typer.Option(
            help="Share of healthy voxels above the threshold, voxel-wise, empirical; default: the model's, or 0.01."
        ),
    ] = None,
    scan_fpr: Annotated[
        float | None, typer.Option(help="Share of new healthy scans flagged at most (split conformal).")
    ] = None,
    brain_mask: Annotated[Path | None, typer.Option(help="Brain mask of the one scan given.")] = None,
    bids_derivative: Annotated[bool, typer.Option("--bids-derivative", help="OUT as a BIDS derivative.")] = False,
    dicom_seg: Annotated[bool, typer.Option("--dicom-seg", help="The mask as DICOM SEG, too (DICOM in).")] = False,
    config: ConfigFile = None,
    set_: Settings = None,
    batch_size: BatchSize = 16,
    workers: Annotated[int, typer.Option(help="Scans done at once, a process each.", min=1)] = 1,
    resume: Resume = False,
    overwrite: Overwrite = False,
    device: Device = "auto",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Anomaly map, mask, healthy reference and report for each scan, on the scan's own grid."""
    from maediff.files import check_apart, read_json
    from maediff.sources import find_sources

    # input is checked before a model is looked for
    given = _inputs(inputs, more)
    refs = find_sources(given, modality, layout=layout, series=series)
    check_apart(out, [*given, *([brain_mask] if brain_mask else [])])
    from maediff.detect import detect as run
    from maediff.postprocess import PostprocessConfig
    from maediff.report import write_report
    from maediff.settings import build_config
    from maediff.steps import steps_config

    with _settings(config, set_) as settings:
        post = settings.pop("postprocess", {})
        build_config(PostprocessConfig, post, "postprocess")
        steps = steps_config({key: settings.pop(key) for key in ("brain", "qc") if key in settings})
        _no_more(settings, "postprocess.*, brain.*, qc.*; those of the model follow it: --model RUN@t_test=125")
    work, image_of = out, None
    if bids_derivative:
        from functools import partial

        from maediff.bids_derivative import prepare_derivative, where, write_derivative

        work, image_of = prepare_derivative(refs, out, resume=resume, overwrite=overwrite), partial(where, out)
    failed = run(
        refs, work, model=model, post=post, steps=steps, modality=modality, threshold=threshold, fpr=fpr,
        scan_fpr=scan_fpr, brain_mask=brain_mask, dicom_seg=dicom_seg, image_of=image_of, batch_size=batch_size,
        workers=workers, resume=resume, overwrite=overwrite, device=device, seed=seed, quiet=quiet,
    )  # fmt: skip
    report_path = write_report(work, out.resolve().name)
    if bids_derivative and (overwrite or failed < len(refs)):
        write_derivative(refs, out, overwrite=overwrite)
        report_path = out / report_path.name
    failures = read_json(work / "detect.json").get("failures", {})
    paths = [work / ref.name / "summary.json" for ref in refs if ref.name not in failures]
    done = [read_json(path) for path in paths if path.is_file()]
    for found in () if quiet else done:
        typer.echo(f"{found['subject']}: {len(found['regions'])} region(s), {found['volume_ml']:.1f} ml above "
                   f"{found['threshold']:.3g}; score {found['score']:.3g}")  # fmt: skip
    typer.echo(f"report: {report_path}")
    _close(list(failures), [found["subject"] for found in done if found["qc"]["flags"]], report_path)
    _exit(failed)


@app.command()
def evaluate(
    runs: Annotated[
        list[str],
        typer.Argument(help="Run folders, or folders of anomaly maps; RUN@s=48 sets a setting, RUN+RUN a mean."),
    ],
    cohort: Annotated[Path, typer.Option(help="A cohort made by `maediff preprocess`.")],
    out: Out,
    calibrate_split: Annotated[str, typer.Option(help="Split that thresholds are chosen on.")] = "val",
    score_split: Annotated[str, typer.Option(help="Split that is scored.")] = "test",
    precision: Annotated[str, typer.Option(help="fp32, bf16, or auto: bf16 where the processor has it.")] = "fp32",
    workers: Annotated[int, typer.Option(help="Runs scored at once, a process each.", min=1)] = 1,
    config: ConfigFile = None,
    set_: Settings = None,
    batch_size: BatchSize = 16,
    overwrite: Overwrite = False,
    device: Device = "auto",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Score runs, and the simple baselines beside them, on a cohort."""
    from maediff.evaluate import evaluate as run
    from maediff.report import write_report
    from maediff.scoring import ScoringConfig
    from maediff.settings import build_config, resolve_device

    with _settings(config, set_) as settings:
        post = settings.pop("postprocess", {})
        scoring = build_config(ScoringConfig, settings, "evaluate")
    run(
        runs, cohort, out, calibrate_split=calibrate_split, score_split=score_split, config=scoring, post=post,
        precision=precision, workers=workers, batch_size=batch_size, overwrite=overwrite,
        device=resolve_device(device), seed=seed, quiet=quiet,
    )  # fmt: skip
    typer.echo((out / "table.md").read_text(encoding="utf-8"))
    typer.echo(f"report: {write_report(out)}")


@app.command()
def compare(
    methods: Annotated[
        list[str],
        typer.Argument(help="Methods to train; maediff:r=16 adds a setting in training, pddpm@s=48 one at test."),
    ],
    cohort: Annotated[Path, typer.Option(help="A cohort made by `maediff preprocess`.")],
    out: Out,
    preset: Annotated[str, typer.Option(help="paper, small or tiny.")] = "tiny",
    steps: Annotated[int | None, typer.Option(help="Steps of every run; default: the preset's.", min=1)] = None,
    max_time: Annotated[str | None, typer.Option(help="Training time of every run: 90s, 10m, 1.5h.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of every method.")] = "0,1,2",
    method_seeds: Annotated[
        list[str] | None, typer.Option("--method-seeds", help="Seeds of one method, e.g. ddpm:0 or ddpm:0,1.")
    ] = None,
    calibrate_split: Annotated[str, typer.Option(help="Split that thresholds are chosen on.")] = "val",
    score_split: Annotated[str, typer.Option(help="Split that is scored.")] = "test",
    precision: Annotated[str, typer.Option(help="Of scoring: fp32, bf16, or auto.")] = "auto",
    workers: Annotated[int, typer.Option(help="Runs scored at once, a process each.", min=1)] = 1,
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
    from maediff.compare import Budget, plan
    from maediff.compare import compare as run
    from maediff.report import write_report
    from maediff.scoring import ScoringConfig
    from maediff.settings import build_config

    own_seeds = {text.partition(":")[0]: _numbers(text.partition(":")[2], text) for text in method_seeds or []}
    budget = Budget(preset, steps, max_time)
    with _settings(config, set_) as settings:
        scored = dict(settings.pop("evaluate", {}))
        post = scored.pop("postprocess", {})
        scoring = build_config(ScoringConfig, scored, "evaluate")
        planned = plan(methods, _numbers(seeds, f"--seeds {seeds}"), budget, settings, own_seeds)
    run(
        planned, budget, cohort, out, calibrate_split=calibrate_split, score_split=score_split, config=scoring,
        post=post, precision=precision, workers=workers, batch_size=batch_size, resume=resume, overwrite=overwrite,
        device=device, seed=seed, command=["maediff", *sys.argv[1:]], quiet=quiet,
    )  # fmt: skip
    typer.echo((out / "eval" / "table.md").read_text(encoding="utf-8"))
    typer.echo(f"report: {write_report(out / 'eval')}")


def _numbers(text: str, said: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{said}: seeds are whole numbers with commas between them, e.g. 0,1,2") from None


@app.command()
def models(device: Device = "auto", seed: Seed = 0, quiet: Quiet = False) -> None:
    """List the models that `detect --model NAME` and `train --init NAME` take by name."""
    from maediff.shipped import describe, models

    del device, seed, quiet
    found = [describe(folder, card) for folder, card in models()]
    typer.echo("\n\n".join(found) or "no model comes with this installation; train one with `maediff train`, or name "
               "a folder of models in MAEDIFF_MODELS")  # fmt: skip


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Output of detect, evaluate, train or demo.")],
    device: Device = "auto",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Write report.html again from what lies in a folder."""
    from maediff.bids_derivative import WORK
    from maediff.report import write_report

    del device, seed, quiet
    if (folder / WORK).is_dir():  # a BIDS derivative
        path = write_report(folder / WORK, folder.resolve().name).replace(folder / "report.html")
    else:
        path = write_report(folder)
    typer.echo(f"report: {path}")


@app.command()
def benchmark(
    preset: Annotated[str, typer.Option(help="paper, small or tiny.")] = "small",
    method: Annotated[str, typer.Option(help="maediff or pddpm.")] = "maediff",
    json: Annotated[Path | None, typer.Option(help="Write the figures there.")] = None,
    precision: Annotated[
        str, typer.Option(help="Of the prediction: fp32, bf16, or auto: bf16 where the processor has it.")
    ] = "fp32",
    repeats: Annotated[int, typer.Option(help="Timed repetitions of each loop, in turn.", min=1)] = 3,
    device: Device = "auto",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Scans per minute, memory, and the ratio to the reference loop (one patch at a time, fp32)."""
    from maediff.benchmark import benchmark as run
    from maediff.files import write_json

    result = run(method, preset=preset, precision=precision, repeats=repeats, device=device, seed=seed)
    if json:
        write_json(json, result)
    if not quiet:
        for key, value in result.items():
            typer.echo(f"{key:24} {value}")


def _no_more(settings: dict[str, Any], known: str) -> None:
    if settings:
        from maediff.settings import SettingsError

        raise SettingsError(f"unknown settings: {', '.join(settings)}; known here: {known}")


def _close(failed: list[str], flagged: list[str], where: Path) -> None:
    """Name the scans that failed or should be looked at, last of all."""
    said = [
        f"{len(names)} {word}: {', '.join(names)}"
        for names, word in ((failed, "failed"), (flagged, "flagged"))
        if names
    ]
    if said:
        typer.echo(f"{'; '.join(said)}; see {where}", err=True)


def _exit(failed: int) -> None:
    if failed:
        raise typer.Exit(1)


def _fail(said: str) -> NoReturn:
    typer.secho(f"maediff: {said}", err=True, fg="red" if sys.stderr.isatty() else None)
    sys.exit(2)


def main() -> None:
    """Entry point: user errors are one line and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("maediff").setLevel(logging.INFO)
    try:
        app(standalone_mode=True)
    except InputError as error:
        _fail(str(error))
    except OSError as error:  # what the file system says no to: a path too long, a full disk, no permission
        if error.strerror is None:
            raise
        where = error.filename2 or error.filename
        _fail(f"{where}: {error.strerror}" if where else error.strerror)


if __name__ == "__main__":
    main()
