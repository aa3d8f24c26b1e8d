"""Detection in many sessions, with a folder of results. `maediff detect` calls `detect_sessions`.

    DETECT/<session>/                  files of `SessionDetection.save`
    DETECT/participants_findings.tsv   one row per session (without a combined result: per scan)
    DETECT/detect.json                 models, thresholds, rule, settings, versions; failures

`made_from` in session.json is a hash of the settings and of the identity of the input files. A
resumed run keeps each session whose hash is unchanged and whose contrasts all succeeded.
"""

import logging
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from maediff.anomaly.combine import DEFAULT_RULE, CombineConfig
from maediff.anomaly.postprocess import DEFAULT as MASK_SETTINGS
from maediff.core.device import resolve_device
from maediff.core.errors import InputError
from maediff.core.files import fresh_folder, read_json, refuse_inputs_inside_output
from maediff.core.options import DEFAULT_RUN, RunOptions
from maediff.core.processes.lock import hold_locks
from maediff.core.processes.threads import use_threads
from maediff.core.progress import Progress
from maediff.core.reading import load_json
from maediff.core.text import hide_folders
from maediff.core.types import MODALITIES, Modality
from maediff.detection.detect import (
    DEFAULT_OPTIONS,
    DetectOptions,
    DetectReport,
    add_command,
    check_same_settings,
    check_same_source,
    collect_settings,
    configure_detector,
    describe_absent,
    hash_inputs,
    load_once_per_process,
    read_contrasts,
    read_kept_failures,
    read_kept_summaries,
    remove_leftovers,
    write_dicom,
    write_outcome,
    write_settings,
)
from maediff.detection.findings import describe_finding
from maediff.detection.result import IMAGES
from maediff.detection.session.detector import GRID_ORDER, SessionDetector
from maediff.detection.session.result import (
    COMBINED_IMAGES,
    COMBINED_MNI_IMAGES,
    SESSION_FILE,
    SessionDetection,
)
from maediff.detection.sidecars import MNI_IMAGES
from maediff.models.catalogue import pick
from maediff.models.thresholds import Threshold
from maediff.scans.dicom.secondary_capture import CAPTURE_FOLDER, check_dicom_sc
from maediff.scans.dicom.segmentation import check_dicom_seg
from maediff.scans.inputs.sessions import SessionRef
from maediff.scans.parallel import run_scans
from maediff.scans.read import source_code
from maediff.scans.reference import ScanRef, remove_folders, short_problem

logger = logging.getLogger(__name__)

FileOf = Callable[[SessionRef, str], Path]
"""(session, path of a file in its folder) -> present path, if the caller moves finished files."""


@dataclass(frozen=True)
class ThresholdChoice:
    """The user's choice of thresholds, the same for every contrast; at most one is given.

    Args:
        threshold: see `Detector.threshold_for`.
        fpr: see `Detector.threshold_for`.
        scan_fpr: see `Detector.threshold_for`.
    """

    threshold: float | None = None
    fpr: float | None = None
    scan_fpr: float | None = None


DEFAULT_CHOICE = ThresholdChoice()


@hold_locks()
def detect_sessions(
    sessions: Sequence[SessionRef],
    out: Path,
    *,
    models: Mapping[Modality, str | Path] | None = None,
    rule: CombineConfig | None = DEFAULT_RULE,
    choice: ThresholdChoice = DEFAULT_CHOICE,
    options: DetectOptions = DEFAULT_OPTIONS,
    file_of: FileOf | None = None,
    run: RunOptions = DEFAULT_RUN,
) -> DetectReport:
    """Detect anomalies in each session, and write a folder of results.

    A contrast or a session that fails does not stop the others.

    Args:
        sessions: the sessions (`scans.inputs.sessions.find_sessions`).
        out: folder of the results.
        models: model of each contrast; the shipped model for the others.
        rule: rule that combines the maps; None leaves out the combined results.
        choice: thresholds of the contrasts.
        options: further options; `image_of` is not used.
        file_of: present path of each file of a finished session.
        run: device, seed, batch_size, workers, threads, resume, overwrite, quiet.

    Returns:
        The summaries of the finished sessions (without a combined result: of their scans), and
        the reasons by name: of a session, or of a session and its contrast.

    Raises:
        InputError: no model for a contrast, no valid threshold, or `out` exists or holds an
            input.
    """
    refs = [ref for session in sessions for ref in session.scans.values()]
    if options.dicom_seg:
        check_dicom_seg(refs)
    if options.dicom_sc:
        check_dicom_sc(refs)
    contrasts = [each for each in MODALITIES if any(each in item.scans for item in sessions)]
    if not contrasts:
        problems = (short_problem(ref) for session in sessions for ref in session.refs)
        raise InputError(next(problems, "`sessions`: empty; give one session or more"))
    given: dict[Modality, str | Path] = {
        contrast: (models or {}).get(contrast) or pick(contrast)[0] for contrast in contrasts
    }
    device = resolve_device(run.device)
    threads = use_threads(run.threads, run.workers)
    detector = _load_detector(given, device, rule, options, run)
    thresholds = {
        contrast: each.threshold_for(
            choice.threshold, choice.fpr, choice.scan_fpr, options.sensitivity
        )
        for contrast, each in detector.detectors.items()
    }
    for each in detector.detectors.values():
        logger.info("%s detects %s", each.name, each.model.detects)
    folders = [folder for each in detector.detectors.values() for folder in each.model.folders]
    refuse_inputs_inside_output(
        out, [*folders, *(file for session in sessions for file in session.files)]
    )
    fresh_folder(out, overwrite=run.overwrite, resume=run.resume)
    carriers = [session.as_scan() for session in sessions]
    remove_leftovers(out, carriers)
    shared = _collect_shared(detector, thresholds, set(models or {}), options, run.seed)
    check_same_settings(out / "detect.json", shared)
    shared = _add_contrasts(shared, read_contrasts(out / "detect.json"))
    names = {session.name for session in sessions}
    kept = read_kept_failures(out, names)
    stated = add_command(shared, options)
    write_settings(out, stated, kept)
    load = (
        load_once_per_process(partial(_load_detector, given, device, rule, options, run))
        if run.workers > 1
        else lambda: detector
    )
    job = _Job(
        out=out,
        sessions={session.name: session for session in sessions},
        shared=shared,
        thresholds=thresholds,
        options=options,
        file_of=file_of,
    )
    outcomes = run_scans(
        partial(_process, job=job, load=load), carriers, run.workers, threads=threads
    )
    combined = rule is not None
    summaries, failures = _collect_outcomes(
        sessions, outcomes, out, combined=combined, quiet=run.quiet
    )
    report = DetectReport(out, summaries, failures)
    others = read_kept_summaries(out, names, partial(_list_summaries, combined=combined))
    write_outcome(stated, report, kept, others)
    return report


def _collect_outcomes(
    sessions: Sequence[SessionRef],
    outcomes: Iterable[dict[str, str] | str],
    out: Path,
    *,
    combined: bool,
    quiet: bool,
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Show the progress of sessions, and collect their summaries.

    Args:
        sessions: the sessions.
        outcomes: for each session, the reasons by name of each part that failed, or the reason
            for which the whole session failed.
        out: folder of the results.
        combined: True if sessions have a combined result.
        quiet: show no progress.

    Returns:
        The summaries, and the reasons by name.
    """
    summaries: list[dict[str, Any]] = []
    failures: dict[str, str] = {}
    with Progress("detect", len(sessions), quiet=quiet) as progress:
        for session, outcome in zip(sessions, outcomes, strict=True):
            reasons = {session.name: outcome} if isinstance(outcome, str) else outcome
            for name, reason in reasons.items():
                failures[name] = _remove_all_folders(reason, session)
            paths = _list_summaries(out / session.name, combined=combined)
            made = [] if isinstance(outcome, str) else [read_json(path) for path in paths]
            summaries += made
            lines = [f"{name} failed: {reason}" for name, reason in reasons.items()]
            lines += [_describe(summary) for summary in made]
            progress.advance("; ".join(lines), failed=bool(reasons))
    return summaries, failures


@dataclass(frozen=True)
class _Job:
    """Values that all sessions of one call share."""

    out: Path
    sessions: Mapping[str, SessionRef]
    shared: Mapping[str, Any]
    thresholds: Mapping[Modality, Threshold]
    options: DetectOptions
    file_of: FileOf | None


def _load_detector(
    models: Mapping[Modality, str | Path],
    device: str,
    rule: CombineConfig | None,
    options: DetectOptions,
    run: RunOptions,
) -> SessionDetector:
    """Return the detectors of all contrasts."""
    detectors = {
        contrast: configure_detector(model, device, options, run)
        for contrast, model in models.items()
    }
    return SessionDetector(detectors, rule)


def _collect_shared(
    detector: SessionDetector,
    thresholds: Mapping[Modality, Threshold],
    given: set[Modality],
    options: DetectOptions,
    seed: int,
) -> dict[str, Any]:
    """Return the content of detect.json: all that results depend on, besides the scans."""
    by_contrast: dict[str, dict[str, Any]] = {}
    for contrast, each in detector.detectors.items():
        chosen = f"chosen for the contrast in the file names, {contrast}"
        origin = "given" if contrast in given else chosen
        settings = collect_settings(each, thresholds[contrast], origin, options, seed)
        by_contrast[contrast] = settings
    first = next(iter(by_contrast.values()))
    rule = detector.rule
    settings = {
        "session": True,
        "model_from": "one model for each contrast",
        "threshold_from": {"session": True},
        "seed": seed,
        "rule": asdict(rule) if rule else None,
        "grid_order": list(GRID_ORDER),
        "postprocess": asdict(MASK_SETTINGS),
        "versions": first["versions"],
        "brain": first["brain"],
        "qc": first["qc"],
        "mni": options.mni,
        "dicom_seg": options.dicom_seg,
        "dicom_sc": options.dicom_sc,
    }
    return _add_contrasts(settings, by_contrast)


def _add_contrasts(
    settings: Mapping[str, Any], further: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return settings with further contrasts, and with what follows from all of them.

    Args:
        settings: content of detect.json; its own contrasts win.
        further: settings of contrasts, for example of an earlier call that this one resumes.
    """
    known = {**further, **settings.get("contrasts", {})}
    by_contrast = {each: known[each] for each in MODALITIES if each in known}
    rule, parts = settings["rule"], list(by_contrast.values())
    return {
        **settings,
        "contrasts": by_contrast,
        "model": "+".join(each["model"] for each in parts),
        "terms": " ".join(filter(None, (each["terms"] for each in parts))),
        "marks": "; ".join(f"{key}: {each['marks']}" for key, each in by_contrast.items()),
        "method": ", ".join(dict.fromkeys(each["method"] for each in parts)),
        "modality": "+".join(by_contrast),
        "threshold": rule["threshold"] if rule else parts[0]["threshold"],
    }


def _process(carrier: ScanRef, job: _Job, load: Callable[[], SessionDetector]) -> dict[str, str]:
    """Detect anomalies in one session, unless the run that is resumed has finished it.

    Returns:
        The reason for each part that failed, by name.
    """
    session = job.sessions[carrier.name]
    unusable = {each: short_problem(ref) for each, ref in session.unusable.items()}
    # The brain mask of the T1w is used, so the search for a T1w in the folder is left out.
    scans = {each: replace(ref, t1=None, t1_series=None) for each, ref in session.scans.items()}
    contrasts = {each: job.shared["contrasts"][each] for each in scans}
    hashes = [hash_inputs(ref, {**job.shared, "contrasts": contrasts}) for ref in scans.values()]
    made_from = "-".join(each[:32] for each in hashes)
    folder = job.out / session.name
    earlier, finished = _read_record(folder)
    if not unusable and earlier == made_from and _has_all_files(folder, finished, session, job):
        return {}
    for contrast, ref in {**session.scans, **session.unusable}.items():
        if contrast in finished and (absent := describe_absent(ref)):
            raise InputError(absent)
    for contrast, ref in scans.items():
        check_same_source(folder / contrast, ref)
    shutil.rmtree(folder, ignore_errors=True)
    if not scans:
        raise InputError(next(iter(unusable.values())))
    try:
        result = load().detect(
            scans,
            name=session.name,
            thresholds=job.thresholds,
            notes=session.notes,
            seed=job.shared["seed"],
        )
    except InputError as error:
        raise InputError("; ".join([str(error), *unusable.values()])) from error
    result = replace(result, failures={**result.failures, **unusable})
    failures = {f"{result.name} {each}": reason for each, reason in result.failures.items()}
    if result.problem:
        failures[result.name] = f"{result.problem}; the maps of each contrast were written alone"
    reasons = {each: _remove_all_folders(text, session) for each, text in result.failures.items()}
    problem = _remove_all_folders(result.problem, session)
    replace(result, failures=reasons, problem=problem).save(
        folder,
        mni=job.options.mni,
        summary={
            "versions": job.shared["versions"],
            "made_from": made_from,
            "model_from": job.shared["model_from"],
        },
        of_contrast={
            each: {
                "model_from": job.shared["contrasts"][each]["model_from"],
                "source": source_code(scans[each]),
            }
            for each in result.detections
        },
        record={} if failures else {"made_from": made_from},
        also=partial(_write_dicom, result, scans, job.options),
    )
    return failures


def _write_dicom(
    result: SessionDetection,
    scans: Mapping[Modality, ScanRef],
    options: DetectOptions,
    folder: Path,
    contrast: Modality,
) -> None:
    """Write the DICOM outputs of one contrast that the options ask for."""
    write_dicom(result.detections[contrast], scans[contrast], options, folder)


def _read_record(folder: Path) -> tuple[str | None, list[str]]:
    """Return `made_from` and the contrasts of an earlier call, that of the grid first."""
    try:
        record = load_json(folder / SESSION_FILE)
        return record.get("made_from"), list(record["contrasts"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # absent or damaged
        return None, []


def _has_all_files(folder: Path, contrasts: Sequence[str], session: SessionRef, job: _Job) -> bool:
    """Return True if a session without failure has all files, and its summaries can be read.

    Args:
        folder: folder of the session.
        contrasts: contrasts of its results, that of the grid first.
        session: the session.
        job: values of the call.
    """
    kept = ["summary.json", "slices.npz", "volumes.npz", "regions.tsv"]  # the caller moves none
    files = [folder / each / name for each in session.scans for name in kept]
    if job.shared["rule"]:
        files += [folder / name for name in kept]
        files += [folder / f"slices_{each}.npz" for each in session.scans]
        files += [folder / f"volumes_{each}.npz" for each in session.scans]
    try:
        for path in files:
            if path.name == "summary.json":
                load_json(path)
    except (OSError, ValueError):  # absent or damaged
        return False
    if not all(path.is_file() for path in files):
        return False
    file_of = job.file_of or (lambda _, name: folder / name)
    kinds, combined = [*IMAGES], [*COMBINED_IMAGES]
    if job.options.mni:
        kinds += MNI_IMAGES
        combined += COMBINED_MNI_IMAGES
    images = [f"{each}/{kind}.nii.gz" for each in session.scans for kind in kinds]
    if job.options.dicom_seg:
        images += [f"{each}/anomaly_mask.dcm" for each in session.scans]
    if job.options.dicom_sc:
        images += [f"{each}/{CAPTURE_FOLDER}/0001.dcm" for each in session.scans]
    if job.shared["rule"]:
        images += [f"{kind}.nii.gz" for kind in combined]
        images += [f"{each}_anomaly_map.nii.gz" for each in session.scans]
        others = session.scans.keys() - contrasts[:1]
        images += [f"{each}_scan.nii.gz" for each in others]
    return all(file_of(session, name).is_file() for name in images)


def _list_summaries(folder: Path, *, combined: bool) -> list[Path]:
    """Return the summary of the combined result; without one, those of the contrasts."""
    if combined and (folder / "summary.json").is_file():
        return [folder / "summary.json"]
    paths = [folder / contrast / "summary.json" for contrast in MODALITIES]
    return [path for path in paths if path.is_file()]


def _describe(summary: Mapping[str, Any]) -> str:
    """Return a line about a combined result, or about a contrast without one."""
    line, origin = describe_finding(summary, {}), summary.get("threshold_from") or {}
    if "n_marked" in origin and "contrasts" in summary:
        line += f"; {origin['n_marked']} of {origin['n_scans']} healthy people have a region"
    return f"{summary['modality']} of {line}"


def _remove_all_folders(text: str, session: SessionRef) -> str:
    """Remove the folders of a session's files from a message."""
    for ref in session.refs:
        text = remove_folders(text, ref)
    return hide_folders(text)
