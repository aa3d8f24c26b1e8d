"""BIDS derivative of sessions: the results of each contrast, and the combined ones.

    OUT/sub-01/ses-2/anat/sub-01_ses-2_desc-anomaly_FLAIR.nii.gz             map of a contrast
                          sub-01_ses-2_desc-anomalyFLAIR_mask.nii.gz         its mask
                          sub-01_ses-2_desc-healthy_FLAIR.nii.gz             its reference
                          sub-01_ses-2_desc-brainFLAIR_mask.nii.gz           its brain mask
                          sub-01_ses-2_space-T1w_desc-anomaly_FLAIR.nii.gz   map on the T1w grid
                          sub-01_ses-2_space-T1w_desc-scan_FLAIR.nii.gz      scan on this grid
                          sub-01_ses-2_desc-session_T1w.nii.gz               combined map
                          sub-01_ses-2_desc-session_mask.nii.gz              combined mask
                          sub-01_ses-2_desc-session_summary.json             its summary.json
                          sub-01_ses-2_space-MNI152NLin2009aSym_desc-...     in MNI152 (optional)
        .detect/          summaries and pictures of the report; a stopped run is resumed from them

The combined map has the suffix of the scan whose grid it has, because BIDS has none for it.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from maediff.core.files import fresh_folder, read_json, refuse_inputs_inside_output, write_json
from maediff.core.types import MODALITIES
from maediff.detection.bids import (
    IGNORED,
    README,
    WORK,
    absolute,
    check_targets,
    find_root,
    read_sidecar,
    remove_results,
    target_of,
    write_description,
)
from maediff.detection.participants import APP_NAMES
from maediff.detection.session.result import SESSION_FILE
from maediff.detection.sidecars import COMBINED, MNI_SUFFIX, describe_image
from maediff.detection.to_scan import MNI_SPACE
from maediff.scans.inputs.sessions import SessionRef

SESSION_NAMES = {
    "anomaly_map": "desc-session_{suffix}",
    "anomaly_mask": "desc-session_mask",
    "anomaly_map_mni": f"space-{MNI_SPACE}_desc-session_{{suffix}}",
    "anomaly_mask_mni": f"space-{MNI_SPACE}_desc-session_mask",
}


def prepare_session_derivative(
    sessions: Sequence[SessionRef], out: Path, *, resume: bool = False, overwrite: bool = False
) -> Path:
    """Return the folder inside `out` for the detection.

    Raises:
        InputError: a scan is in no BIDS dataset, the scans are in several, or two scans have the
            same BIDS name; `out` exists, or holds an input.
    """
    refs = [ref for session in sessions for ref in session.scans.values()]
    find_root(refs)
    by_contrast: dict[str, list] = {}
    for session in sessions:
        for contrast, ref in session.scans.items():
            by_contrast.setdefault(contrast, []).append(ref)
    for same in by_contrast.values():
        check_targets(same)
    refuse_inputs_inside_output(out, [file for session in sessions for file in session.files])
    return fresh_folder(out, overwrite=False, resume=resume or overwrite) / WORK


def write_session_derivative(
    sessions: Sequence[SessionRef], out: Path, *, overwrite: bool = False
) -> None:
    """Move the images of the detection in `out` to their BIDS names, and describe the dataset.

    Args:
        sessions: the sessions.
        out: folder of the derivative.
        overwrite: remove the subjects of an earlier run first.
    """
    root = find_root([ref for session in sessions for ref in session.scans.values()])
    if overwrite:
        remove_results(out)
    for session in sessions:
        _place_results(session, out, root)
    findings = out / WORK / "participants_findings.tsv"
    if findings.is_file():
        os.replace(findings, out / findings.name)
    write_description(out, root, readme=README, ignored=IGNORED)


def file_of(out: Path, session: SessionRef, name: str) -> Path:
    """Return the present path of a file: its BIDS name, or the folder of the detection."""
    here = out / WORK / session.name / name
    first = read_grid_contrast(out / WORK / session.name)
    for source, target, _ in list_targets(session, first):
        if source == name and (out / target).is_file():
            return out / target
    return here


def read_grid_contrast(folder: Path) -> str:
    """Return the contrast whose grid a session's results have; empty without results."""
    return next(iter(_read_contrasts(folder)), "")


def _read_contrasts(folder: Path) -> list[str]:
    """Return the contrasts of a session's results, that of the grid first; empty without any."""
    path = folder / SESSION_FILE
    return list(map(str, read_json(path)["contrasts"])) if path.is_file() else []


def list_targets(session: SessionRef, first: str) -> Iterator[tuple[str, Path, str]]:
    """Yield the file in the session's folder, its BIDS name, and its kind, for each image.

    Args:
        session: the session.
        first: contrast whose grid the results have.
    """
    for contrast, ref in session.scans.items():
        for kind in APP_NAMES:
            yield f"{contrast}/{kind}.nii.gz", target_of(ref, kind, APP_NAMES), kind
        space = {
            "contrast_anomaly_map": f"space-{first}_desc-anomaly_{{suffix}}",
            "contrast_scan": f"space-{first}_desc-scan_{{suffix}}",
        }
        for kind in space:
            name = kind.replace("contrast", contrast)
            yield f"{name}.nii.gz", target_of(ref, kind, space), kind
        if contrast == first:
            for kind in SESSION_NAMES:
                target = target_of(ref, kind, SESSION_NAMES)
                yield f"{kind}.nii.gz", target, f"{COMBINED}{kind}"


def _place_results(session: SessionRef, out: Path, root: Path) -> None:
    """Move the images of one session to their BIDS names, and write sidecars and summaries.

    Images of an earlier run that the present run has not made are removed.
    """
    work = out / WORK / session.name
    contrasts = _read_contrasts(work)
    first = next(iter(contrasts), "")
    targets = list(list_targets(session, first))
    present = {relative for _, relative, _ in targets}
    # An earlier run may have had the grid of another contrast, and contrasts that are gone.
    earlier = [(session, grid) for grid in MODALITIES]
    earlier += [(gone, first) for gone in _list_absent(session)]
    for each, grid in earlier:
        for _, relative, _ in list_targets(each, grid):
            if relative not in present:
                _remove(out / relative)
    sources: dict[str, str] = {
        contrast: f"bids:raw:{absolute(ref.image).relative_to(root).as_posix()}"
        for contrast, ref in session.scans.items()
    }
    combined = (work / "summary.json").is_file()
    for name, relative, kind in targets:
        target, made = out / relative, work / name
        contrast = name.replace("/", "_").partition("_")[0]
        in_session = contrast not in session.scans
        on_grid = in_session or kind in ("contrast_anomaly_map", "contrast_scan")
        expected = (
            combined
            and (in_session or contrast in contrasts)
            and (kind != "contrast_scan" or contrast != first)
            if on_grid
            else (work / contrast / "summary.json").is_file()
        )
        in_mni = kind.endswith(MNI_SUFFIX)  # written only if the options ask for it
        expected &= not in_mni or made.is_file() or target.is_file()
        if not expected:
            _remove(target)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if made.is_file():  # otherwise the run that is resumed has moved it
            os.replace(made, target)
        described = {**read_sidecar(made), **describe_image(kind)}
        used = contrasts if in_session else [contrast]
        described["Sources"] = [sources[each] for each in used]
        if not in_mni:
            described["SpatialReference"] = sources[first if on_grid else contrast]
        write_json(_sidecar_of(target), described)
        if kind.endswith("anomaly_mask"):
            summary = work / ("summary.json" if in_session else f"{contrast}/summary.json")
            shutil.copyfile(summary, _summary_of(target))


def _list_absent(session: SessionRef) -> Iterator[SessionRef]:
    """Yield, for each contrast that a session lacks, the session with that contrast alone.

    Its scan may have been there for an earlier run, under the name of another contrast's scan with
    its own suffix.
    """
    for other in MODALITIES:
        if session.scans and other not in session.scans:
            contrast, ref = next(iter(session.scans.items()))
            image = ref.image.with_name(ref.image.name.replace(f"_{contrast}.", f"_{other}."))
            yield replace(session, scans={other: replace(ref, image=image, modality=other)})


def _sidecar_of(image: Path) -> Path:
    """Return the path of an image's sidecar."""
    return image.with_name(image.name.replace(".nii.gz", ".json"))


def _summary_of(mask: Path) -> Path:
    """Return the path of the summary beside a mask."""
    return mask.with_name(mask.name.replace("mask.nii.gz", "summary.json"))


def _remove(image: Path) -> None:
    """Remove an image, its sidecar, and the summary beside a mask, where they exist."""
    for path in (image, _sidecar_of(image)):
        path.unlink(missing_ok=True)
    if image.name.endswith("_mask.nii.gz"):
        _summary_of(image).unlink(missing_ok=True)
