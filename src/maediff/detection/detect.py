"""Detection of anomalies in many scans, with a folder of results. `maediff detect` calls `detect`.

    DETECT/<scan>/                     files of `Detection.save`, and DICOM outputs (optional)
    DETECT/participants_findings.tsv   one row per scan: score, volume, regions, flags
    DETECT/detect.json                 model, threshold, settings, versions, command; failures

A scan's folder appears when it is complete.
`made_from` in its summary.json is a hash of the settings and of the identity of the input files.
A resumed run keeps each scan whose hash is unchanged.
"""

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from maediff.anomaly.sensitivity import Sensitivity
from maediff.core.device import resolve_device
from maediff.core.errors import InputError
from maediff.core.files import fresh_folder, read_json, refuse_inputs_inside_output, write_json
from maediff.core.options import DEFAULT_RUN, RunOptions
from maediff.core.processes.lock import hold_locks
from maediff.core.processes.threads import use_threads
from maediff.core.progress import Progress
from maediff.core.reading import load_json
from maediff.core.shards import (
    finish_shard,
    forget_shards,
    hash_names,
    open_shared_folder,
    read_shards,
    start_shard,
)
from maediff.core.text import hash_text, hide_folders
from maediff.core.types import MODALITIES
from maediff.detection.detector import Detector, make_detector
from maediff.detection.findings import REPAIR, describe_finding, write_findings
from maediff.detection.result import IMAGES, Detection, library_versions
from maediff.detection.sidecars import MNI_IMAGES
from maediff.models.catalogue import pick
from maediff.models.model import read_model
from maediff.models.thresholds import (
    IN_RESIDUAL,
    IN_THRESHOLDS,
    Threshold,
    check_one_choice,
)
from maediff.preparation.brain_extraction import BrainConfig
from maediff.preparation.config import OPTIONAL
from maediff.preparation.quality import QualityConfig
from maediff.preparation.steps import Tools
from maediff.scans.content import pointer_problem
from maediff.scans.dicom.secondary_capture import (
    CAPTURE_FOLDER,
    check_dicom_sc,
    write_dicom_sc,
)
from maediff.scans.dicom.segmentation import check_dicom_seg, write_dicom_seg
from maediff.scans.parallel import run_scans
from maediff.scans.ray_engine import describe_missing_results
from maediff.scans.read import identity, source_code
from maediff.scans.reference import ScanRef, remove_folders, short_problem

logger = logging.getLogger(__name__)
Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class DetectOptions:
    """Options of `detect` besides model and threshold.

    Args:
        brain: brain extraction of raw scans.
        qc: quality control.
        postprocess: changes to the model's own post-processing, by field of `PostprocessConfig`.
        sensitivity: level of the threshold, if neither `threshold` nor a rate is given; see
            `Detector.threshold_for`.
        mni: also write map, mask and healthy reference in MNI152.
        dicom_seg: also write the mask as a DICOM segmentation object; every scan must be DICOM.
        dicom_sc: also write the scan with its mask in colour as a DICOM secondary-capture series;
            every scan must be DICOM.
        image_of: (scan, kind in `IMAGES` or `MNI_IMAGES`) -> path of the image, if the caller
            moves finished images to other folders.
        tools: replacements for brain extraction, N4 and registration.
        command: command line of the call, for the report; it changes no result.
    """

    brain: BrainConfig = field(default_factory=BrainConfig)
    qc: QualityConfig = field(default_factory=QualityConfig)
    postprocess: Mapping[str, Any] = field(default_factory=dict)
    sensitivity: Sensitivity | None = None
    mni: bool = False
    dicom_seg: bool = False
    dicom_sc: bool = False
    image_of: Callable[[ScanRef, str], Path] | None = None
    tools: Tools = field(default_factory=Tools)
    command: str = ""


DEFAULT_OPTIONS = DetectOptions()


@dataclass(frozen=True)
class DetectReport:
    """The outcome of `detect`.

    Args:
        folder: folder of the results.
        summaries: content of summary.json of each finished scan, in the order of the inputs.
        failures: reason for each scan that failed, by name.
    """

    folder: Path
    summaries: list[dict[str, Any]]
    failures: dict[str, str]

    @property
    def flagged(self) -> list[str]:
        """Names of the finished scans or sessions that quality control flagged."""
        flagged = (each["subject"] for each in self.summaries if each["qc"]["flags"])
        return list(dict.fromkeys(flagged))  # a session may have a summary for each contrast


@hold_locks()
def detect(
    refs: Sequence[ScanRef],
    out: Path,
    *,
    model: str | Path | None = None,
    modality: str | None = None,
    threshold: float | None = None,
    fpr: float | None = None,
    scan_fpr: float | None = None,
    brain_mask: Path | None = None,
    options: DetectOptions = DEFAULT_OPTIONS,
    run: RunOptions = DEFAULT_RUN,
) -> DetectReport:
    """Detect anomalies in each scan, and write a folder of results.

    A scan that fails does not stop the others.

    Args:
        refs: the scans (`maediff.find_scans`).
        out: folder of the results.
        model: see `models.model.read_model`. None chooses the shipped model for the contrast of
            the scans.
        modality: contrast of all scans, which overrides the file names.
        threshold: see `Detector.threshold_for`.
        fpr: see `Detector.threshold_for`.
        scan_fpr: see `Detector.threshold_for`.
        brain_mask: brain mask of a single scan, which replaces brain extraction.
        options: further options.
        run: device, seed, batch_size, workers, threads, resume, overwrite, quiet, shard, engine.

    Returns:
        The summaries of the finished scans, and the reason for each scan that failed; each
        failure is also logged. A shard returns its own scans and writes no table of findings;
        `merge_shards` does, after all shards.

    Raises:
        InputError: no model for the contrast, no valid threshold, or `out` exists or holds an
            input.
    """
    _check_arguments(refs, brain_mask, options)
    if threshold is not None:
        Threshold.given(threshold)
    check_one_choice(threshold, fpr, scan_fpr, options.sensitivity)
    model, model_from = (model, "given") if model else _pick_model(refs, modality)
    device = resolve_device(run.device)
    threads = use_threads(run.threads, run.workers)
    if run.engine == "ray":
        threads = run.threads or 1  # of a task
    detector = configure_detector(model, device, options, run)
    logger.info("%s detects %s", detector.name, detector.model.detects)
    _check_contrasts(refs, detector, modality)
    chosen = detector.threshold_for(threshold, fpr, scan_fpr, options.sensitivity)
    if detector.scale is None:
        logger.info(
            "%s has no valid thresholds: its anomaly maps show the residual", detector.name
        )
    refs = [replace(ref, brain_mask=brain_mask or ref.brain_mask) for ref in refs]
    refuse_inputs_inside_output(
        out, [*detector.model.folders, *(file for ref in refs for file in ref.files)]
    )
    if run.shard is None:
        fresh_folder(out, overwrite=run.overwrite, resume=run.resume)
    else:
        open_shared_folder(out, run.shard, overwrite=run.overwrite, resume=run.resume)
    shared = collect_settings(detector, chosen, model_from, options, run.seed)
    scans = [f"{ref.dataset}/{ref.subject} {ref.name}" for ref in refs]
    common = {"command": "detect", "scans": hash_names(scans), **shared}
    if run.shard is not None:
        start_shard(out, run.shard, common, resume=run.resume)
        refs = [ref for ref in refs if run.shard.owns(ref.dataset, ref.subject)]
    remove_leftovers(out, refs)
    check_same_settings(out / "detect.json", shared)
    names = {ref.name for ref in refs}
    kept = read_kept_failures(out, names)
    stated = add_command(shared, options)
    write_settings(out, stated, kept)
    # Each process loads the model once, instead of receiving it with every scan.
    load = (
        load_once_per_process(partial(configure_detector, model, device, options, run))
        if run.workers > 1 or run.engine == "ray"
        else lambda: detector
    )
    job = _Job(out=out, shared=shared, threshold=chosen, modality=modality, options=options)
    process = partial(_process, job=job, load=load)
    outcomes = run_scans(process, refs, run.workers, threads=threads, engine=run.engine)
    summaries, failures = _collect_outcomes(refs, outcomes, out, shared, quiet=run.quiet)
    report = DetectReport(out, summaries, failures)
    if run.shard is not None:
        done = [ref.name for ref in refs if ref.name not in failures]
        finish_shard(out, run.shard, common, {"scans": done, "failures": failures})
        return report
    others = read_kept_summaries(out, names | kept.keys(), _list_summary)
    write_outcome(stated, report, kept, others)
    forget_shards(out)
    return report


def _check_arguments(
    refs: Sequence[ScanRef], brain_mask: Path | None, options: DetectOptions
) -> None:
    """Refuse a brain mask for several scans, and DICOM outputs of scans that are not DICOM."""
    if brain_mask is not None and len(refs) != 1:
        raise InputError(
            f"`brain_mask={brain_mask}`: for one scan, but {len(refs)} were found; use a "
            "manifest CSV"
        )
    if brain_mask is not None and not brain_mask.is_file():
        raise InputError(f"`brain_mask={brain_mask}`: no such file; check the path")
    if options.dicom_seg:
        check_dicom_seg(refs)
    if options.dicom_sc:
        check_dicom_sc(refs)


def _collect_outcomes(
    refs: Sequence[ScanRef],
    outcomes: Iterable[str | None],
    out: Path,
    shared: Mapping[str, Any],
    *,
    quiet: bool,
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Show the progress of scans, and collect their summaries.

    Args:
        refs: the scans.
        outcomes: for each scan, None, or the reason of its failure.
        out: folder of the results.
        shared: content of detect.json.
        quiet: show no progress.

    Returns:
        The summaries of the finished scans, and the reason for each scan that failed, by name.
    """
    summaries: list[dict[str, Any]] = []
    failures: dict[str, str] = {}
    with Progress("detect", len(refs), quiet=quiet) as progress:
        for ref, failure in zip(refs, outcomes, strict=True):
            if failure is None and not (out / ref.name / "summary.json").is_file():
                failure = describe_missing_results(ref)
            if failure is None:
                summaries.append(read_json(out / ref.name / "summary.json"))
                progress.advance(describe_finding(summaries[-1], shared))
            else:
                failures[ref.name] = hide_folders(remove_folders(failure, ref))
                progress.advance(f"{ref.name} failed: {failure}", failed=True)
    return summaries, failures


def read_kept_failures(out: Path, names: set[str]) -> dict[str, str]:
    """Return the failures of earlier calls on other scans, which a resumed call keeps.

    Args:
        out: folder of the results.
        names: names of the scans or sessions of this call.
    """
    if not (out / "detect.json").is_file():
        return {}
    recorded = read_json(out / "detect.json", remedy=REPAIR).get("failures", {})
    return {name: text for name, text in recorded.items() if not {name, _owner(name)} & names}


def read_kept_summaries(
    out: Path, without: set[str], summaries_of: Callable[[Path], Iterable[Path]]
) -> list[dict[str, Any]]:
    """Return the summaries of earlier calls; a damaged one is logged and skipped.

    Args:
        out: folder of the results.
        without: names of the scans or sessions to leave out.
        summaries_of: returns the summaries in the folder of a scan or session.
    """
    summaries = []
    for folder in sorted(out.glob("[!.]*")):
        for path in summaries_of(folder) if folder.name not in without else ():
            try:
                summaries.append(read_json(path))
            except InputError as error:
                logger.warning("%s", error)
    return summaries


def _owner(name: str) -> str:
    """Return the scan or session of a failure; that of a contrast is named SESSION CONTRAST."""
    session, _, contrast = name.rpartition(" ")
    return session if contrast in MODALITIES else name


def write_outcome(
    settings: Mapping[str, Any],
    report: DetectReport,
    kept_failures: Mapping[str, str],
    kept_summaries: Sequence[Mapping[str, Any]],
) -> None:
    """Write the failures and the table of findings, of this call and of earlier ones.

    Args:
        settings: content of detect.json besides the failures.
        report: the outcome of this call.
        kept_failures: from `read_kept_failures`, before this call.
        kept_summaries: from `read_kept_summaries`.
    """
    failures = {**kept_failures, **report.failures}
    write_settings(report.folder, settings, failures)
    summaries = [*kept_summaries, *report.summaries]
    write_findings(report.folder / "participants_findings.tsv", summaries, failures)


def write_settings(out: Path, settings: Mapping[str, Any], failures: Mapping[str, str]) -> None:
    """Write detect.json with the failures, if there are any."""
    write_json(out / "detect.json", {**settings, **({"failures": failures} if failures else {})})


def _list_summary(folder: Path) -> list[Path]:
    """Return the summary in the folder of a scan, if it has one."""
    return [path for path in [folder / "summary.json"] if path.is_file()]


def merge_shards(out: Path) -> DetectReport:
    """Write the failures and the table of findings of a folder that several shards filled.

    Args:
        out: folder of the results.

    Raises:
        InputError: a shard is missing or has not finished, or a summary is missing; names it.
    """
    records = read_shards(out)
    failures = {name: text for record in records for name, text in record["failures"].items()}
    names = sorted(name for record in records for name in record["scans"])
    summaries = [
        read_json(out / name / "summary.json", remedy="run its shard again with `resume=True`")
        for name in names
    ]
    shared = read_json(out / "detect.json", remedy=REPAIR)
    shared = {key: value for key, value in shared.items() if key != "failures"}
    report = DetectReport(out, summaries, failures)
    write_outcome(shared, report, {}, [])
    return report


@dataclass(frozen=True)
class _Job:
    """Values that all scans of one call of `detect` share."""

    out: Path
    shared: Mapping[str, Any]
    threshold: Threshold
    modality: str | None
    options: DetectOptions


def configure_detector(
    model: str | Path, device: str, options: DetectOptions, run: RunOptions
) -> Detector:
    """Return the detector for a model and the options of a call.

    Args:
        model: see `models.model.read_model`.
        device: device of the network.
        options: brain extraction, quality control, post-processing and tools are used.
        run: `batch_size` is used.
    """
    detector = make_detector(read_model(model, device), batch_size=run.batch_size)
    preparation = replace(detector.preparation, brain=options.brain, qc=options.qc)
    detector = replace(detector, preparation=preparation, tools=options.tools)
    return detector.with_postprocess(options.postprocess)


def add_command(settings: Mapping[str, Any], options: DetectOptions) -> Mapping[str, Any]:
    """Return settings with the command line of the call, if it is known; it changes no result."""
    return {**settings, "command": options.command} if options.command else settings


_LOADED: dict[int, Any] = {}


def load_once_per_process(load: Callable[[], Loaded]) -> Callable[[], Loaded]:
    """Return a function, for workers, that loads the models once per process and command.

    Args:
        load: loads the models; can be pickled.
    """
    return partial(_load_once, load, time.time_ns())


def _load_once(load: Callable[[], Loaded], call: int) -> Loaded:
    """Return what `load` has loaded in this process for the command that `call` identifies."""
    if call not in _LOADED:
        _LOADED.clear()
        _LOADED[call] = load()
    loaded: Loaded = _LOADED[call]
    return loaded


def _pick_model(refs: Sequence[ScanRef], modality: str | None) -> tuple[str, str]:
    """Choose the shipped model for the contrast of the scans; return its name and the reason.

    Raises:
        InputError: the contrast is unknown, differs between scans, or has no shipped model.
    """
    stated = {ref.modality for ref in refs} - {None, "other"}
    contrasts = sorted(str(contrast) for contrast in stated)
    if modality is None and len(contrasts) != 1:
        finding = f"{refs[0].image}: the file name states no contrast"
        if contrasts:
            finding = f"the scans are {' and '.join(contrasts)}"
        raise InputError(f"{finding}; give `modality` (T1w, T2w or FLAIR) or `model`")
    contrast = modality or contrasts[0]
    name, _ = pick(contrast)
    source = "the given contrast" if modality else "the contrast in the file names"
    reason = f"chosen for {source}, {contrast}"
    logger.info("model: %s, %s", name, reason)
    return name, reason


def _check_contrasts(refs: Sequence[ScanRef], detector: Detector, modality: str | None) -> None:
    """Refuse scans if all have another contrast than the model; a single one fails later."""
    wrong = [ref for ref in refs if ref.modality not in (None, "other", detector.modality)]
    if modality is not None or len(wrong) == len(refs):
        detector.check_contrast(refs[0], modality)


def collect_settings(
    detector: Detector, threshold: Threshold, model_from: str, options: DetectOptions, seed: int
) -> dict[str, Any]:
    """Return the content of detect.json: all that results depend on, besides the scan.

    Args:
        detector: the detector of the call.
        threshold: its threshold.
        model_from: reason for the choice of the model.
        options: options of the call.
        seed: seed of the noise at test.
    """
    model = detector.model
    cohort = model.settings.cohort
    return {
        "model": model.name,
        "model_from": model_from,
        "terms": model.terms,
        "marks": model.detects,
        "method": model.settings.method,
        "modality": detector.modality,
        "unit": IN_RESIDUAL if detector.scale is None else IN_THRESHOLDS,
        "scale": detector.scale,
        "threshold": threshold.value,
        "threshold_from": dict(threshold.origin),
        "seed": seed,
        "config": model.config,
        "postprocess": asdict(model.postprocess),
        "grid": cohort["grid"],
        "normalise": cohort["normalise"],
        "model_step": model.step,
        "weights_sha256": model.weights_sha256,
        **{key: cohort.get(key, {}) for key in OPTIONAL},
        "versions": library_versions(),
        "brain": asdict(options.brain),
        "qc": asdict(options.qc),
        "mni": options.mni,
        "dicom_seg": options.dicom_seg,
        "dicom_sc": options.dicom_sc,
    }


def check_same_settings(path: Path, shared: Mapping[str, Any]) -> None:
    """Refuse to resume in a folder that was made with other settings.

    A folder of sessions may get a further contrast.

    Args:
        path: detect.json of the folder; it may not exist.
        shared: content of detect.json for this call.

    Raises:
        InputError: names the settings that differ.
    """
    if path.is_file():
        known = without_origins(read_json(path, remedy=REPAIR))
        present = without_origins(json.loads(json.dumps(shared)))
        earlier, contrasts = known.pop("contrasts", {}), present.pop("contrasts", {})
        changed = [
            key
            for key, value in present.items()
            if known.get(key) != value and key != "threshold_from"  # follows from the threshold
        ]
        for contrast in sorted(contrasts.keys() & earlier.keys()):
            own, other = contrasts[contrast], earlier[contrast]
            differing = [key for key in own if own[key] != other.get(key)]
            changed += [f"{key} of {contrast}" for key in differing if key not in changed]
        if changed:
            raise InputError(
                f"{path.parent}: was made with another {', '.join(changed)}; choose another "
                "folder, or use `overwrite=True`"
            )


def read_contrasts(path: Path) -> dict[str, Any]:
    """Return the settings of each contrast in the detect.json of a folder of sessions.

    Args:
        path: detect.json of the folder; it may not exist.
    """
    return dict(read_json(path, remedy=REPAIR)["contrasts"]) if path.is_file() else {}


FROM_CONTRASTS = ("model", "terms", "marks", "method", "modality", "threshold")
"""Keys of the detect.json of sessions that follow from its contrasts and its rule."""


def without_origins(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of detect.json without what follows from the rest, or changes nothing.

    The reasons for the models change no result.

    Args:
        settings: content of detect.json, also of sessions.
    """
    contrasts = settings.get("contrasts")
    dropped = {"model_from", *(FROM_CONTRASTS if contrasts else ())}
    kept = {key: value for key, value in settings.items() if key not in dropped}
    if contrasts:
        kept["contrasts"] = {key: without_origins(each) for key, each in contrasts.items()}
    return kept


def remove_leftovers(out: Path, refs: Sequence[ScanRef]) -> None:
    """Remove unfinished folders of these scans, which a killed run left.

    Unfinished folders of other scans stay, because another process may be writing them.
    """
    names = {ref.name for ref in refs}
    for leftover in out.glob(".*.tmp-*"):
        if leftover.name[1:].rpartition(".tmp-")[0] in names:
            shutil.rmtree(leftover, ignore_errors=True)


def _process(ref: ScanRef, job: _Job, load: Callable[[], Detector]) -> None:
    """Detect anomalies in one scan, unless the run that is resumed has finished it."""
    made_from = hash_inputs(ref, job.shared)
    folder = job.out / ref.name
    if is_finished(folder, made_from, _result_files(ref, folder, job.options)):
        return
    if absent := describe_absent(ref):
        raise InputError(absent)
    check_same_source(folder, ref)
    shutil.rmtree(folder, ignore_errors=True)
    detector = load()
    detection = detector.detect(
        ref, modality=job.modality, threshold=job.threshold, seed=job.shared["seed"]
    )
    summary = {
        "model_from": job.shared["model_from"],
        "versions": job.shared["versions"],
        "scan": ref.image.name,
        "made_from": made_from,
        "source": source_code(ref),
    }
    write_extras = partial(write_dicom, detection, ref, job.options)
    detection.save(folder, mni=job.options.mni, summary=summary, also=write_extras)


def describe_absent(ref: ScanRef) -> str | None:
    """Return the reason if the content of a scan is absent, but may be there again later.

    Its earlier results are then kept. "Get, process, drop" is usual with git-annex and Git LFS.
    """
    if ref.problem and not ref.image.exists():
        return short_problem(ref)
    return pointer_problem(ref.image) if ref.image.is_file() else None


def check_same_source(folder: Path, ref: ScanRef) -> None:
    """Refuse to replace the results of another scan, which has the same name.

    Args:
        folder: results of an earlier call; it may not exist.
        ref: the scan of this call.

    Raises:
        InputError: the results are of a file at another place with other content.
    """
    try:
        earlier = load_json(folder / "summary.json")["source"].split("-")
        present = source_code(ref).split("-")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return  # no results, damaged ones, or those of an older version
    if all(code != other for code, other in zip(earlier, present, strict=False)):
        raise InputError(
            f"{ref.image}: {folder.parent} holds results of another scan named {folder.name}; "
            "choose another folder, or give the scan another subject in a manifest CSV"
        )


def write_dicom(detection: Detection, ref: ScanRef, options: DetectOptions, folder: Path) -> None:
    """Write the DICOM outputs of a detection that the options ask for.

    Args:
        detection: the result.
        ref: the scan, with its DICOM folder and series.
        options: `dicom_seg` and `dicom_sc` are used.
        folder: folder of the outputs.
    """
    mask, volume, model = detection.anomaly_mask, detection.volume, detection.model
    if options.dicom_seg:
        write_dicom_seg(folder / "anomaly_mask.dcm", mask, volume, ref, model)
    if options.dicom_sc:
        write_dicom_sc(folder / CAPTURE_FOLDER, mask, detection.brain_mask, volume, ref, model)


def _result_files(ref: ScanRef, folder: Path, options: DetectOptions) -> list[Path]:
    """Return files that every finished scan has."""
    image_of = options.image_of or (lambda _, kind: folder / f"{kind}.nii.gz")
    kinds = (*IMAGES, *(MNI_IMAGES if options.mni else ()))
    files = [*(image_of(ref, kind) for kind in kinds), folder / "slices.npz"]
    files += [folder / "anomaly_mask.dcm"] if options.dicom_seg else []
    files += [folder / CAPTURE_FOLDER / "0001.dcm"] if options.dicom_sc else []
    return files


def hash_inputs(ref: ScanRef, shared: Mapping[str, Any]) -> str:
    """Return a hash of the settings and of the identity of the input files.

    The hash hides paths, because summaries are given to other people.
    """
    text = json.dumps([without_origins(shared), identity(replace(ref, lesion_mask=None))])
    return hash_text(text)


def is_finished(folder: Path, made_from: str, files: Sequence[Path]) -> bool:
    """Return True if a scan was finished with the same settings and inputs, and its files exist.

    Args:
        folder: folder of the scan.
        made_from: from `hash_inputs`.
        files: files of a finished scan.
    """
    try:
        summary = load_json(folder / "summary.json")
        return bool(summary["made_from"] == made_from) and all(path.is_file() for path in files)
    except (OSError, ValueError, KeyError, TypeError):  # absent or damaged
        return False
