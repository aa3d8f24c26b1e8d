"""BIDS App: detection in all contrasts of a BIDS dataset, participants first, then the group.

    OUT/sub-01/anat/sub-01_desc-anomaly_T1w.nii.gz       images, sidecars and summaries, as `bids`
                    sub-01_desc-anomalyT1w_mask.nii.gz   the contrast is in `desc` of masks
        reports/T1w/                                     a folder of `detect`; group: report.html
        methods.md                                       the processing as a paragraph, to paste
        participants_findings.tsv                        group: one row per scan

Each contrast has its own model and its own folder in reports/. Runs for different participants may
write to one OUT at the same time, because each changes only files of its own scans.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from maediff.core.errors import InputError
from maediff.core.files import (
    fresh_folder,
    read_json,
    refuse_inputs_inside_output,
    write_json,
    write_text,
)
from maediff.core.options import DEFAULT_RUN, RunOptions
from maediff.core.processes.lock import hold_locks
from maediff.core.reading import load_json
from maediff.core.types import MODALITIES, Modality
from maediff.detection.bids import (
    absolute,
    check_targets,
    is_in_own_folder,
    place_results,
    target_of,
    write_description,
)
from maediff.detection.detect import DetectOptions, DetectReport, detect
from maediff.detection.findings import write_findings
from maediff.detection.methods_text import describe_methods
from maediff.detection.result import IMAGES
from maediff.detection.to_scan import MNI_SPACE
from maediff.models.model import read_model
from maediff.scans.inputs.find import find_scans
from maediff.scans.inputs.folders import list_bids_contrasts
from maediff.scans.names import nifti_stem
from maediff.scans.reference import ScanRef

logger = logging.getLogger(__name__)

Scans = Mapping[Modality, Sequence[ScanRef]]
"""The scans of a dataset by contrast."""
REPORTS = "reports"
FAILED = "failed.json"
INCOMPLETE = "an image is missing; run the participant level again"
REPAIR = "delete it and run the participant level again: finished scans are kept"
"""Remedy for a damaged detect.json."""
APP_NAMES = {
    "anomaly_map": "desc-anomaly_{suffix}",
    "anomaly_mask": "desc-anomaly{suffix}_mask",
    "healthy_reference": "desc-healthy_{suffix}",
    "brain_mask": "desc-brain{suffix}_mask",
    "anomaly_map_mni": f"space-{MNI_SPACE}_desc-anomaly_{{suffix}}",
    "anomaly_mask_mni": f"space-{MNI_SPACE}_desc-anomaly{{suffix}}_mask",
    "healthy_reference_mni": f"space-{MNI_SPACE}_desc-healthy_{{suffix}}",
}
"""As `bids.NAMES`, with the contrast in the names of masks: a session may have several."""
IGNORED = f"*_summary.json\n{REPORTS}\nmethods.md\nparticipants_findings.tsv\n"
README = """\
Anomaly maps and masks, healthy references and brain masks of a BIDS dataset, by maediff.

`reports/CONTRAST/report.html` shows them after the group level.
`methods.md` describes the processing.
For research, not for diagnosis.
"""
PARAMETERS = (
    "model",
    "model_step",
    "method",
    "modality",
    "unit",
    "scale",
    "threshold",
    "threshold_from",
    "postprocess",
    "grid",
    "normalise",
    "bias",
    "registration",
    "brain",
    "seed",
    "versions",
)
"""Entries of detect.json that the sidecars repeat."""
MAX_LISTED = 20


def check_dataset(dataset: Path) -> None:
    """Check that a folder is a BIDS dataset, as far as maediff depends on it.

    Raises:
        InputError: lists everything that is wrong.
    """
    description = dataset / "dataset_description.json"
    try:
        content = load_json(description)
    except (OSError, ValueError) as error:
        problems = [f"dataset_description.json cannot be read ({error})"]
    else:
        entries = content if isinstance(content, dict) else {}
        problems = [
            f"dataset_description.json lacks the text {key}"
            for key in ("Name", "BIDSVersion")
            if not isinstance(entries.get(key), str)
        ]
    folders = _list_participants(dataset)
    if not folders:
        problems.append("there is no folder sub-LABEL")
    problems += [
        f"{name}: a label has letters and digits only"
        for name in folders
        if not re.fullmatch(r"sub-[0-9a-zA-Z+]+", name)
    ]
    if problems:
        raise InputError(
            f"{dataset}: not a valid BIDS dataset: {'; '.join(problems[:MAX_LISTED])}; "
            "correct it, or use `skip_bids_validation=True`"
        )


def find_participants(
    dataset: Path,
    participants: Sequence[str] = (),
    sessions: Sequence[str] = (),
    modalities: Sequence[Modality] = (),
) -> dict[Modality, list[ScanRef]]:
    """Find the scans of a BIDS dataset by contrast.

    Args:
        dataset: folder with dataset_description.json.
        participants: labels with or without `sub-`; none for all participants.
        sessions: labels with or without `ses-`; none for all scans, with a session or without.
        modalities: contrasts; none for all that the dataset has.

    Raises:
        InputError: `dataset` is no BIDS dataset; a label is unknown; no scan is left.
    """
    if not (dataset / "dataset_description.json").is_file():
        raise InputError(
            f"{dataset}: holds no dataset_description.json, so it is no BIDS dataset; check the "
            "path, or use `maediff detect` for other folders"
        )
    folders = _list_participants(dataset)
    wanted = _resolve_labels(participants, "sub", folders, f"{dataset}: no participant")
    refs: list[ScanRef] = []
    for modality in modalities or list_bids_contrasts(dataset):
        # `find_scans` also offers in-plane T2 scans as T2w, but they cover a part of the brain.
        # A contrast of which no scan can be read must not stop the other contrasts.
        of_contrast = find_scans([dataset], modality, layout="plain", need_usable=False)
        refs += [
            # A folder that may not be read fails in each contrast that it may hold.
            replace(ref, modality=modality) if _may_hold_scans(ref, dataset) else ref
            for ref in of_contrast
            if not nifti_stem(ref.image).endswith("_inplaneT2")
        ]
    refs = [ref for ref in refs if ref.modality]
    refs = [ref for ref in refs if not wanted or _find_participant(ref, dataset) in wanted]
    refs = [_check_folder(ref, dataset) for ref in refs]
    known = sorted({session for ref in refs if (session := _find_session(ref, dataset))})
    chosen = _resolve_labels(
        sessions, "ses", known, f"{dataset}: no session of these participants"
    )
    refs = [
        ref
        for ref in refs
        if not chosen
        or _find_session(ref, dataset) in chosen
        or len(_locked_parts(ref, dataset)) == 1  # the participant's folder, so any session
    ]
    contrasts = " or ".join(modalities or MODALITIES)
    without = sorted({*(wanted or folders)} - {_find_participant(ref, dataset) for ref in refs})
    if not refs:
        raise InputError(
            f"{dataset}: no {contrasts} scan of {_list_names(without) or 'any participant'}; "
            "check the names of the files (sub-01_ses-1_T1w.nii.gz) and .bidsignore"
        )
    if without:
        logger.warning("no %s scan: %s", contrasts, _list_names(without))
    return {
        modality: selected
        for modality in MODALITIES
        if (selected := [ref for ref in refs if ref.modality == modality])
    }


def choose_models(models: Sequence[str], scans: Scans) -> dict[Modality, str]:
    """Return the given models by the contrast that they were trained on.

    Raises:
        InputError: two models have the same contrast, or no scan has the contrast of a model.
    """
    by_contrast: dict[Modality, str] = {}
    for model in models:
        contrast = read_model(model, "cpu").preparation.modality
        if contrast is None or contrast not in scans:
            raise InputError(
                f"`model={model}`: trained on {contrast}, but the scans are "
                f"{' and '.join(scans)}; leave it out or choose another model"
            )
        if contrast in by_contrast:
            raise InputError(
                f"`model={model}`: {by_contrast[contrast]} is for {contrast} too; give one of them"
            )
        by_contrast[contrast] = model
    return by_contrast


@hold_locks()
def run_participants(
    dataset: Path,
    out: Path,
    scans: Scans,
    *,
    models: Mapping[Modality, str] | None = None,
    options: DetectOptions | None = None,
    run: RunOptions = DEFAULT_RUN,
) -> dict[Modality, DetectReport]:
    """Detect anomalies in the scans of some or all participants; finished scans are skipped.

    Args:
        dataset: the BIDS dataset.
        out: folder of the derivative; it may hold other participants of the same dataset.
        scans: from `find_participants`.
        models: model by contrast; the shipped model for the others.
        options: options of `detect`, except `image_of`.
        run: `overwrite` empties `out` first; `resume` is always on.

    Returns:
        The outcome by contrast.

    Raises:
        InputError: `out` holds an input, is not made by maediff, or was made with other settings;
            two scans have the same BIDS name; a file has the name of a folder that is needed;
            `out` is the derivative of another dataset; no model for a contrast.
    """
    root = absolute(dataset)
    for refs in scans.values():
        check_targets([ref for ref in refs if not ref.problem])
    refuse_inputs_inside_output(out, [dataset])
    names = {f"{modality} {ref.name}" for modality, refs in scans.items() for ref in refs}
    parts = None if run.overwrite else names  # runs of other participants may write to `out`
    fresh_folder(out, overwrite=run.overwrite, resume=not run.overwrite, parts=parts)
    _refuse_other_dataset(out, root)
    for refs in scans.values():
        _refuse_files_in_the_way(out, refs)
    write_description(out, root, readme=README, ignored=IGNORED)
    reports = {}
    for modality, refs in scans.items():
        work = out / REPORTS / modality
        reports[modality] = report = detect(
            refs,
            work,
            model=(models or {}).get(modality),
            options=replace(options or DetectOptions(), image_of=partial(_image_of, out, work)),
            run=replace(run, overwrite=False, resume=True),
        )
        shared = read_json(work / "detect.json")
        parameters = {key: shared[key] for key in PARAMETERS if key in shared}
        for ref in refs:
            if ref.name in report.failures:
                reason = {"reason": report.failures[ref.name]}
                write_json(work / ref.name / FAILED, reason)
            if is_in_own_folder(ref, root) and not ref.is_unusable_folder:
                place_results(ref, out, work, root, names=APP_NAMES, parameters=parameters)
        write_text(work / "methods.md", describe_methods(shared) + "\n")
    _write_methods(out)
    return reports


def collect_group(out: Path, scans: Scans) -> dict[Modality, DetectReport]:
    """Collect the results of all participants, and write the tables and the methods paragraph.

    A scan without results, or with a missing image, counts as failed.

    Args:
        out: folder of the derivative that `run_participants` wrote.
        scans: from `find_participants`.

    Returns:
        The outcome by contrast; contrasts that no participant was processed for are left out.

    Raises:
        InputError: no participant was processed, or a file is damaged.
    """
    reports: dict[Modality, DetectReport] = {}
    reasons: dict[str, list[str]] = {}
    for modality, refs in scans.items():
        work = out / REPORTS / modality
        if not (work / "detect.json").is_file():
            logger.warning("%s: no participant was processed, so it is left out", modality)
            continue
        summaries, failures = [], {}
        for ref in refs:
            try:
                summary = read_json(work / ref.name / "summary.json")
                reason = None if _is_in_place(out, ref) else INCOMPLETE
            except InputError:
                reason = _read_reason(work / ref.name)
            if reason is None:
                summaries.append(summary)
            else:
                failures[ref.name] = reason
                reasons.setdefault(ref.name, []).append(f"{modality}: {reason}")
        shared = read_json(work / "detect.json", remedy=REPAIR)
        write_json(work / "detect.json", {**shared, "failures": failures})
        write_findings(work / "participants_findings.tsv", summaries, failures)
        reports[modality] = DetectReport(work, summaries, failures)
    if not any(report.summaries for report in reports.values()):
        raise InputError(
            f"{out}: holds no results of these participants; run the participant level first"
        )
    write_findings(
        out / "participants_findings.tsv",
        [summary for report in reports.values() for summary in report.summaries],
        {name: "; ".join(texts) for name, texts in reasons.items()},
    )
    _write_methods(out)
    return reports


def _list_participants(dataset: Path) -> list[str]:
    return sorted(path.name for path in dataset.glob("sub-*") if path.is_dir())


def _resolve_labels(
    labels: Sequence[str], entity: str, known: Sequence[str], message: str
) -> set[str]:
    """Return labels with their entity (`sub-01`).

    Raises:
        InputError: a label is not in `known`; names it.
    """
    full = {f"{entity}-{label.removeprefix(f'{entity}-')}" for label in labels}
    unknown = sorted(full - set(known))
    if unknown:
        listed = _list_names(known) or "none"
        raise InputError(f"{message} {', '.join(unknown)}; choose from: {listed}")
    return full


def _list_names(names: Sequence[str]) -> str:
    more = [f"and {len(names) - MAX_LISTED} more"] if len(names) > MAX_LISTED else []
    return ", ".join([*names[:MAX_LISTED], *more])


def _locked_parts(ref: ScanRef, dataset: Path) -> tuple[str, ...]:
    """Return the path in the dataset of a folder that may not be read; empty for a scan."""
    if not ref.is_unusable_folder:
        return ()
    return absolute(ref.image).relative_to(absolute(dataset)).parts


def _may_hold_scans(ref: ScanRef, dataset: Path) -> bool:
    """True for a folder that may not be read and is a participant's, a session's or in anat."""
    parts = _locked_parts(ref, dataset)
    is_above = len(parts) == 1 or (len(parts) == 2 and parts[1].startswith("ses-"))
    return is_above or "anat" in parts


def _find_participant(ref: ScanRef, dataset: Path) -> str:
    """Return the participant of a scan, or of a folder that may not be read."""
    return next(iter(_locked_parts(ref, dataset)), ref.subject)


def _find_session(ref: ScanRef, dataset: Path) -> str | None:
    """Return the session (`ses-a`) of a scan, or of a folder that may not be read."""
    names = [*_locked_parts(ref, dataset)[1:2], ref.session]
    matches = (re.match(r"ses-[^_]+", name) for name in names)
    return next((match.group() for match in matches if match), None)


def _check_folder(ref: ScanRef, dataset: Path) -> ScanRef:
    """Return the scan, with a `problem` if it is in the folder of another participant."""
    if ref.problem or is_in_own_folder(ref, absolute(dataset)):
        return ref
    folder = absolute(ref.image).relative_to(absolute(dataset)).parts[0]
    problem = (
        f"{ref.image}: named {ref.subject}, but in the folder {folder}; rename or move the file"
    )
    return replace(ref, problem=problem)


def _image_of(out: Path, work: Path, ref: ScanRef, kind: str) -> Path:
    """Return the path of an image: its BIDS name, or the detection's folder before it is moved."""
    if ref.problem:
        return work / ref.name / f"{kind}.nii.gz"
    target = out / target_of(ref, kind, APP_NAMES)
    return target if target.is_file() else work / ref.name / f"{kind}.nii.gz"


def _is_in_place(out: Path, ref: ScanRef) -> bool:
    """Check that the images of a scan have their BIDS names; true for a scan with a problem."""
    return bool(ref.problem) or all(
        (out / target_of(ref, kind, APP_NAMES)).is_file() for kind in IMAGES
    )


def _refuse_other_dataset(out: Path, root: Path) -> None:
    """Check that a derivative was made from this dataset, if its dataset still exists.

    Participants of two datasets may have the same labels. A dataset that was moved is accepted.

    Raises:
        InputError: `out` is the derivative of another dataset.
    """
    path = out / "dataset_description.json"
    if not path.is_file():
        return
    links = read_json(path).get("DatasetLinks")
    link = links.get("raw") if isinstance(links, dict) else None
    if not isinstance(link, str) or not (out / link).is_dir():
        return
    if (out / link).resolve() != root.resolve():
        raise InputError(
            f"{out}: holds results of another dataset, {link}; choose another folder, or use "
            "`overwrite=True` to delete them"
        )


def _refuse_files_in_the_way(out: Path, refs: Sequence[ScanRef]) -> None:
    """Check the folders that the results of scans go to, before the detection starts.

    Raises:
        InputError: a file has the name of a folder that is needed.
    """
    for ref in refs:
        if ref.problem:
            continue
        for folder in target_of(ref, "anomaly_map", APP_NAMES).parents:
            path = out / folder
            if path.exists() and not path.is_dir():
                raise InputError(
                    f"{path}: is a file, but the results need a folder of this name; remove the "
                    "file or choose another folder"
                )


def _read_reason(folder: Path) -> str:
    try:
        reason: Any = read_json(folder / FAILED).get("reason")
    except InputError:
        reason = None
    return str(reason or "no results; run the participant level")


def _write_methods(out: Path) -> None:
    """Write methods.md from the paragraphs of all contrasts."""
    paragraphs = [
        path.read_text(encoding="utf-8")
        for modality in MODALITIES
        if (path := out / REPORTS / modality / "methods.md").is_file()
    ]
    write_text(out / "methods.md", "\n".join(paragraphs))
