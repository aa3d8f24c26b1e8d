"""Commands that scans are given to: `preprocess` and `detect`."""

from pathlib import Path
from typing import Annotated

import typer

from maediff.cli.options import (
    BatchSize,
    ConfigFile,
    Device,
    Inputs,
    LayoutName,
    Modality,
    MoreInputs,
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
    from maediff.core.files import read_json, refuse_inputs_inside_output
    from maediff.scans.inputs.find import find_scans

    if bids_derivative and viewer:
        raise InputError(
            "--viewer: a BIDS derivative has no place for it; leave out --viewer or --bids-derivative"
        )
    # input is checked before a model is looked for
    given = inputs_of(inputs, more)
    refs = find_scans(given, modality, layout=layout, series=series)
    refuse_inputs_inside_output(out, [*given, *([brain_mask] if brain_mask else [])])
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
