"""`maediff detect`."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from maediff.cli.shared.call import describe_call
from maediff.cli.shared.errors import echo
from maediff.cli.shared.options import (
    BatchSize,
    ConfigFile,
    Device,
    Engine,
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
    ShardText,
    Threads,
    collect_inputs,
    exit_if_failed,
    parse_shard,
    print_failures,
    print_shard,
    read_cli_settings,
    refuse_settings,
)
from maediff.core.errors import InputError

if TYPE_CHECKING:
    from maediff.anomaly.combine import CombineConfig
    from maediff.core.options import RunOptions
    from maediff.detection.detect import DetectOptions
    from maediff.detection.session.detect import ThresholdChoice
    from maediff.scans.inputs.sessions import SessionRef
    from maediff.scans.reference import ScanRef


def detect(
    out: Out,
    inputs: Inputs = None,
    more: MoreInputs = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Run folder, name from `maediff models`, or hf:ORG/NAME. RUN@s=24 changes a "
            "setting of the method, RUN+RUN averages two models; both need --threshold. Default: "
            "the shipped model for the contrast.",
            show_default=False,
        ),
    ] = None,
    modality: Modality = None,
    sample: Annotated[
        bool,
        typer.Option(
            "--sample",
            help="Use the synthetic sample scan as INPUT: FLAIR, or T1w with --modality T1w.",
        ),
    ] = False,
    series: Series = None,
    layout: LayoutName = "auto",
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Threshold of the anomaly map, in units of the model's default threshold: 0.7 "
            "detects more than the default, 1.5 less. For a model without calibration: of the "
            "residual, 0 to 1. Excludes --fpr, --scan-fpr and --sensitivity.",
            min=0,
        ),
    ] = None,
    fpr: Annotated[
        float | None,
        typer.Option(
            help="Highest share of healthy voxels in masks, counted on the model's healthy "
            "scans. Default: the model's own threshold or rate (`maediff models`), or 0.01. "
            "Excludes --threshold, --scan-fpr and --sensitivity."
        ),
    ] = None,
    scan_fpr: Annotated[
        float | None,
        typer.Option(
            help="Highest share of new healthy scans in which a region is detected (split "
            "conformal). Excludes --threshold, --fpr and --sensitivity."
        ),
    ] = None,
    sensitivity: Annotated[
        Literal["low", "default", "high"] | None,
        typer.Option(
            help="Level of the threshold, from the model's healthy scans: low never detects more "
            "than the default, high never less. Excludes --threshold, --fpr and --scan-fpr.",
        ),
    ] = None,
    brain_mask: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Brain mask, if INPUT is a single scan."),
    ] = None,
    combine: Annotated[
        bool,
        typer.Option(
            "--combine/--no-combine",
            help="Combine the contrasts of each session into one map, if INPUT has several.",
        ),
    ] = True,
    bids_derivative: Annotated[
        bool, typer.Option("--bids-derivative", help="Write the results as a BIDS derivative.")
    ] = False,
    mni: Annotated[
        bool,
        typer.Option("--mni", help="Also write map, mask and healthy reference in MNI152."),
    ] = False,
    dicom_seg: Annotated[
        bool,
        typer.Option("--dicom-seg", help="Also write the mask as DICOM SEG; INPUT must be DICOM."),
    ] = False,
    dicom_sc: Annotated[
        bool,
        typer.Option(
            "--dicom-sc",
            help="Also write the scan with its mask in colour as DICOM images; INPUT must be "
            "DICOM.",
        ),
    ] = False,
    config: ConfigFile = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Setting of postprocess, brain or qc, for example brain.tool=synthstrip; can be "
            "repeated.",
        ),
    ] = None,
    batch_size: BatchSize = 16,
    workers: ScanWorkers = 1,
    threads: Threads = None,
    shard: ShardText = None,
    engine: Engine = "local",
    resume: Resume = False,
    overwrite: Overwrite = False,
    device: Device = "auto",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Detect anomalies in scans: anomaly map, mask, healthy reference and report for each scan.

    If INPUT holds several contrasts of the same people, and none of --modality, --model and
    --brain-mask is given, each session gets the results of every contrast and a combined map.
    """
    from maediff.core.files import refuse_inputs_inside_output

    part = parse_shard(shard)
    if part and bids_derivative:
        raise InputError(
            "`bids_derivative`: cannot be written by shards; use `maediff-bids`, whose runs for "
            "different participants share one folder, or leave out `shard`"
        )
    # The input is checked before the model is searched.
    given = _find_sample(modality, [*(inputs or []), *(more or [])]) if sample else None
    given = given or collect_inputs(inputs, more)
    only_one = modality is not None or model is not None or brain_mask is not None
    refs, sessions = _find(given, modality, layout, series, only_one=only_one)
    refuse_inputs_inside_output(out, [*given, *([brain_mask] if brain_mask else [])])
    from maediff.anomaly.combine import DEFAULT_RULE
    from maediff.core.config import take_group
    from maediff.core.options import RunOptions
    from maediff.detection.bids import image_of, prepare_derivative, write_derivative
    from maediff.detection.detect import DetectOptions
    from maediff.detection.detect import detect as detect_scans
    from maediff.detection.session.detect import ThresholdChoice
    from maediff.preparation.config import PreparationConfig
    from maediff.report import write_report

    with read_cli_settings(config, set_) as settings:
        given_parts: dict[str, Any] = {
            key: settings.pop(key) for key in ("brain", "qc") if key in settings
        }
        parts = PreparationConfig.from_settings(given_parts)
        options = DetectOptions(
            brain=parts.brain,
            qc=parts.qc,
            postprocess=take_group(settings, "postprocess"),
            sensitivity=sensitivity,
            mni=mni,
            dicom_seg=dicom_seg,
            dicom_sc=dicom_sc,
            command=describe_call(),
        )
        refuse_settings(
            settings,
            "postprocess.*, brain.* and qc.*; settings of the model follow its name: "
            "--model RUN@t_test=125",
        )
    run = RunOptions(
        device=device,
        seed=seed,
        batch_size=batch_size,
        workers=workers,
        resume=resume,
        overwrite=overwrite,
        quiet=quiet,
        threads=threads,
        shard=part,
        engine=engine,
    )
    work = out
    if sessions:
        if part or engine != "local":
            raise InputError(
                "several contrasts of one session: have neither `shard` nor `engine='ray'`; "
                "give `modality`, and run each contrast into a folder of its own"
            )
        choice = ThresholdChoice(threshold, fpr, scan_fpr)
        rule = DEFAULT_RULE if combine else None
        _detect_in_sessions(sessions, out, rule, choice, options, run, as_bids=bids_derivative)
        return
    if bids_derivative:
        work = prepare_derivative(refs, out, resume=resume, overwrite=overwrite)
        options = replace(options, image_of=partial(image_of, out))
    report = detect_scans(
        refs,
        work,
        model=model,
        modality=modality,
        threshold=threshold,
        fpr=fpr,
        scan_fpr=scan_fpr,
        brain_mask=brain_mask,
        options=options,
        run=run,
    )
    if part:
        print_shard(part, len(report.summaries) + len(report.failures), out)
        print_failures(list(report.failures), report.flagged, part.record_in(out))
        exit_if_failed(len(report.failures))
        return
    if bids_derivative and (overwrite or report.summaries):
        write_derivative(refs, out, overwrite=overwrite)
    page = write_report(out)
    echo(f"report: {page}")
    print_failures(list(report.failures), report.flagged, page)
    exit_if_failed(len(report.failures))


def _find_sample(modality: str | None, inputs: Sequence[Path]) -> list[Path]:
    """Return the path of the sample scan as the only input.

    Raises:
        InputError: other inputs are given, or the sample has no such contrast.
    """
    from maediff.synthetic.sample import find_sample

    if inputs:
        raise InputError(f"`sample` and {inputs[0]}: give one of them")
    return [find_sample(modality)]


def _find(
    given: Sequence[Path], modality: str | None, layout: str, series: str | None, *, only_one: bool
) -> tuple[list["ScanRef"], list["SessionRef"]]:
    """Find scans of one contrast, or else sessions of several.

    Args:
        given: INPUT.
        modality: see `find_scans`.
        layout: see `find_scans`.
        series: see `find_scans`.
        only_one: True if an option names the contrast or is for a single scan.

    Returns:
        Scans and no sessions, or no scans and sessions.
    """
    from maediff.scans.inputs.find import find_scans
    from maediff.scans.inputs.sessions import find_sessions, has_several_contrasts

    try:
        refs = find_scans(given, modality, layout=layout, series=series)
        if only_one or not has_several_contrasts(refs):
            return refs, []
    except InputError:
        if only_one:
            raise
        try:
            sessions = find_sessions(given, layout=layout, series=series)
        except InputError:
            sessions = []
        if len({contrast for session in sessions for contrast in session.scans}) < 2:
            raise
        return [], sessions
    return [], find_sessions(given, layout=layout, series=series)


def _detect_in_sessions(
    sessions: Sequence["SessionRef"],
    out: Path,
    rule: "CombineConfig | None",
    choice: "ThresholdChoice",
    options: "DetectOptions",
    run: "RunOptions",
    *,
    as_bids: bool,
) -> None:
    """Detect in several contrasts of each person, write the report and print the findings."""
    from maediff.detection.session.bids import (
        file_of,
        prepare_session_derivative,
        write_session_derivative,
    )
    from maediff.detection.session.detect import detect_sessions
    from maediff.report import write_report

    work, present = out, None
    if as_bids:
        work = prepare_session_derivative(
            sessions, out, resume=run.resume, overwrite=run.overwrite
        )
        present = partial(file_of, out)
    report = detect_sessions(
        sessions, work, rule=rule, choice=choice, options=options, file_of=present, run=run
    )
    if as_bids and (run.overwrite or report.summaries):
        write_session_derivative(sessions, out, overwrite=run.overwrite)
    page = write_report(out)
    echo(f"report: {page}")
    print_failures(list(report.failures), report.flagged, page)
    exit_if_failed(len(report.failures))
