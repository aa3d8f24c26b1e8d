"""Commands that scans are given to: `preprocess` and `detect`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from maediff.cli.options import (
    BatchSize,
    ConfigFile,
    Device,
    Inputs,
    LayoutName,
    Modality,
    MoreInputs,
    NoDevice,
    NoSeed,
    Out,
    Overwrite,
    Quiet,
    Resume,
    ScanWorkers,
    Seed,
    Series,
    exit_if,
    inputs_of,
    no_more,
    say_failed,
    settings_of,
)
from maediff.core.errors import InputError


def preprocess(
    out: Out,
    inputs: Inputs = None,
    more: MoreInputs = None,
    modality: Modality = None,
    series: Series = None,
    layout: LayoutName = "auto",
    fold: Annotated[
        int,
        typer.Option(help="Of IXI's healthy scans: which of five blocks is val.", min=0, max=4),
    ] = 0,
    manifest_only: Annotated[
        bool, typer.Option("--manifest-only", help="Write OUT/manifest.csv, no images.")
    ] = False,
    lesion_free_margin: Annotated[
        int, typer.Option(help="Slices beside a lesion left out of training.", min=0)
    ] = 1,
    like: Annotated[
        str | None,
        typer.Option(
            help="Run or shipped model: prepare scans as its own were; --config and --set win."
        ),
    ] = None,
    workers: ScanWorkers = 1,
    config: ConfigFile = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value of grid, normalise, brain, bias, registration, qc."),
    ] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    device: NoDevice = "auto",
    seed: NoSeed = 0,
    quiet: Quiet = False,
) -> None:
    """Bring scans onto the model's grid: a cohort to train and evaluate on."""
    if manifest_only:
        from maediff.core.files import check_apart, fresh_folder
        from maediff.scans.inputs.find import find_sources
        from maediff.scans.inputs.manifest import write_manifest

        given = inputs_of(inputs, more)
        refs = find_sources(given, modality, layout=layout, series=series, fold=fold, unique=True)
        check_apart(out, [*given, *(file for ref in refs for file in ref.files)])
        write_manifest(
            fresh_folder(out, overwrite=overwrite, resume=resume) / "manifest.csv", refs
        )
        typer.echo(f"manifest of {len(refs)} scans: {out / 'manifest.csv'}")
        return
    from maediff.cohort.preprocess import preprocess as run
    from maediff.core.config import build_config, merge
    from maediff.preparation.config import steps_config
    from maediff.preparation.grid import GridConfig
    from maediff.preparation.intensities import NormaliseConfig

    known: dict[str, Any] = {}
    if like:
        from maediff.models.folder import prepared_for

        known = prepared_for(like)
    with settings_of(config, set_) as changes:
        settings = merge(known, changes)
        grid = build_config(GridConfig, settings.pop("grid", {}), "grid")
        normalise = build_config(NormaliseConfig, settings.pop("normalise", {}), "normalise")
        of_steps = [key for key in ("brain", "bias", "registration", "qc") if key in settings]
        steps = steps_config({key: settings.pop(key) for key in of_steps})
        no_more(settings, "grid.*, normalise.*, brain.*, bias.*, registration.*, qc.*")
    failed = run(
        inputs_of(inputs, more),
        out,
        modality=modality,
        layout=layout,
        series=series,
        fold=fold,
        lesion_free_margin=lesion_free_margin,
        grid=grid,
        normalise=normalise,
        steps=steps,
        workers=workers,
        resume=resume,
        overwrite=overwrite,
        quiet=quiet,
    )
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
    lost, flagged = (
        [name for name, word in status.items() if word == kind] for kind in ("failed", "flagged")
    )
    say_failed(lost, flagged, out / "qc.csv")
    exit_if(failed)


def detect(
    out: Out,
    inputs: Inputs = None,
    more: MoreInputs = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Run folder, name of `maediff models`, or hf:ORG/NAME; RUN@s=24 sets a test setting, "
            "RUN+RUN a mean (both want --threshold); default: the shipped model for the contrast.",
            show_default=False,
        ),
    ] = None,
    modality: Modality = None,
    series: Series = None,
    layout: LayoutName = "auto",
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Of the anomaly map, 0 to 1; default: the model's, or by --fpr.", min=0, max=1
        ),
    ] = None,
    fpr: Annotated[
        float | None,
        typer.Option(
            help="Share of healthy voxels above the threshold, voxel-wise, empirical; default: the model's "
            "threshold or rate (`maediff models`), or 0.01."
        ),
    ] = None,
    scan_fpr: Annotated[
        float | None,
        typer.Option(help="Share of new healthy scans flagged at most (split conformal)."),
    ] = None,
    brain_mask: Annotated[
        Path | None, typer.Option(help="Brain mask of the one scan given.")
    ] = None,
    bids_derivative: Annotated[
        bool, typer.Option("--bids-derivative", help="OUT as a BIDS derivative.")
    ] = False,
    dicom_seg: Annotated[
        bool, typer.Option("--dicom-seg", help="The mask as DICOM SEG, too (DICOM in).")
    ] = False,
    viewer: Annotated[
        bool, typer.Option("--viewer", help="A page for each scan to move through it in, too.")
    ] = False,
    config: ConfigFile = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="key=value of postprocess, brain, qc.")
    ] = None,
    batch_size: BatchSize = 16,
    workers: ScanWorkers = 1,
    resume: Resume = False,
    overwrite: Overwrite = False,
    device: Device = "auto",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Anomaly map, mask, healthy reference and report for each scan, on the scan's own grid."""
    from maediff.core.files import check_apart, read_json
    from maediff.scans.inputs.find import find_sources

    if bids_derivative and viewer:
        raise InputError(
            "--viewer: a BIDS derivative has no place for it; leave out --viewer or --bids-derivative"
        )
    # input is checked before a model is looked for
    given = inputs_of(inputs, more)
    refs = find_sources(given, modality, layout=layout, series=series)
    check_apart(out, [*given, *([brain_mask] if brain_mask else [])])
    from maediff.anomaly.postprocess import PostprocessConfig
    from maediff.core.config import build_config
    from maediff.detection.detect import detect as run
    from maediff.preparation.config import steps_config
    from maediff.report import write_report

    with settings_of(config, set_) as settings:
        post = settings.pop("postprocess", {})
        build_config(PostprocessConfig, post, "postprocess")
        steps = steps_config(
            {key: settings.pop(key) for key in ("brain", "qc") if key in settings}
        )
        no_more(
            settings,
            "postprocess.*, brain.*, qc.*; those of the model follow it: --model RUN@t_test=125",
        )
    work, image_of = out, None
    if bids_derivative:
        from functools import partial

        from maediff.detection.bids import prepare_derivative, where, write_derivative

        work, image_of = (
            prepare_derivative(refs, out, resume=resume, overwrite=overwrite),
            partial(where, out),
        )
    failed = run(
        refs,
        work,
        model=model,
        post=post,
        steps=steps,
        modality=modality,
        threshold=threshold,
        fpr=fpr,
        scan_fpr=scan_fpr,
        brain_mask=brain_mask,
        dicom_seg=dicom_seg,
        viewer=viewer,
        image_of=image_of,
        batch_size=batch_size,
        workers=workers,
        resume=resume,
        overwrite=overwrite,
        device=device,
        seed=seed,
        quiet=quiet,
    )
    report_path = write_report(work, out.resolve().name)
    if bids_derivative and (overwrite or failed < len(refs)):
        write_derivative(refs, out, overwrite=overwrite)
        report_path = out / report_path.name
    failures = read_json(work / "detect.json").get("failures", {})
    paths = [work / ref.name / "summary.json" for ref in refs if ref.name not in failures]
    done = [read_json(path) for path in paths if path.is_file()]
    for found in () if quiet else done:
        typer.echo(
            f"{found['subject']}: {len(found['regions'])} region(s), {found['volume_ml']:.1f} ml above "
            f"{found['threshold']:.3g}; score {found['score']:.3g}"
        )
    typer.echo(f"report: {report_path}")
    say_failed(
        list(failures), [found["subject"] for found in done if found["qc"]["flags"]], report_path
    )
    exit_if(failed)
