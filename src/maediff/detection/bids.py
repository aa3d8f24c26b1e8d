"""BIDS derivatives of detections: the same results under BIDS names.

    OUT/dataset_description.json, README.md, report.html, .bidsignore
        sub-01/ses-2/anat/sub-01_ses-2_desc-anomaly_T1w.nii.gz      anomaly map
                          sub-01_ses-2_desc-anomaly_mask.nii.gz     anomaly mask
                          sub-01_ses-2_desc-healthy_T1w.nii.gz      healthy reference
                          sub-01_ses-2_desc-brain_mask.nii.gz       brain mask
                          sub-01_ses-2_desc-anomaly_summary.json    summary.json
                          sub-01_ses-2_space-MNI152NLin2009aSym_desc-anomaly_T1w.nii.gz, ...
                                                                    the same in MNI152 (optional)
        .detect/          summaries and slices of the report; a stopped run is resumed from them

Names have the form <entities of the scan>_desc-<kind>_<suffix> (BIDS 1.9, derivatives).
The anomaly map keeps the scan's suffix. BIDS has none for it, and it is no probability
(`probseg`).
"""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maediff import __version__
from maediff.core.errors import InputError
from maediff.core.files import (
    fresh_folder,
    read_json,
    refuse_inputs_inside_output,
    write_json,
    write_text,
)
from maediff.detection.sidecars import MNI_IMAGES, describe_image, describe_unit
from maediff.detection.to_scan import MNI_SPACE
from maediff.scans.reference import ScanRef, subject_in_dataset

WORK = ".detect"
SCAN_REPORTS = "scan_reports"
"""Folder of the pages of single scans, if there are so many that report.html is an index."""
BIDS_VERSION = "1.9.0"
NAMES = {
    "anomaly_map": "desc-anomaly_{suffix}",
    "anomaly_mask": "desc-anomaly_mask",
    "healthy_reference": "desc-healthy_{suffix}",
    "brain_mask": "desc-brain_mask",
    "anomaly_map_mni": f"space-{MNI_SPACE}_desc-anomaly_{{suffix}}",
    "anomaly_mask_mni": f"space-{MNI_SPACE}_desc-anomaly_mask",
    "healthy_reference_mni": f"space-{MNI_SPACE}_desc-healthy_{{suffix}}",
}
"""Name after the entities of the scan, by kind of image; {suffix} is the scan's suffix."""
IGNORED = f"*_summary.json\nreport.html\n{SCAN_REPORTS}\nparticipants_findings.tsv\n"
README = """\
Anomaly maps and masks, healthy references and brain masks of a BIDS dataset, by maediff.

`report.html` shows them. For research, not for diagnosis.
maediff's docs/guides/bids.md explains the files, and docs/reference/summary.md the summaries.
"""


def prepare_derivative(
    refs: Sequence[ScanRef], out: Path, *, resume: bool = False, overwrite: bool = False
) -> Path:
    """Return the folder inside `out` for the detection; only `write_derivative` changes the rest.

    Args:
        refs: the scans.
        out: folder of the derivative.
        resume: keep finished scans of an earlier call.
        overwrite: replace the results of an earlier call.

    Raises:
        InputError: a scan is in no BIDS dataset, the scans are in several, or two scans have the
            same BIDS name; `out` exists, or holds an input.
    """
    find_root(refs)
    check_targets([ref for ref in refs if not ref.problem])
    refuse_inputs_inside_output(out, [file for ref in refs for file in ref.files])
    return fresh_folder(out, overwrite=False, resume=resume or overwrite) / WORK


def check_targets(refs: Sequence[ScanRef]) -> None:
    """Refuse two scans whose results would have the same BIDS name.

    Raises:
        InputError: names both scans.
    """
    targets: dict[Path, ScanRef] = {}
    for ref in refs:
        twin = targets.setdefault(target_of(ref, "anomaly_mask"), ref)
        if twin is not ref:
            raise InputError(
                f"{twin.image} and {ref.image}: would be written under one BIDS name; give one of "
                "them"
            )


def write_derivative(refs: Sequence[ScanRef], out: Path, *, overwrite: bool = False) -> None:
    """Move the images of the detection in `out` to their BIDS names, and describe the dataset.

    Args:
        refs: the scans.
        out: folder of the derivative.
        overwrite: remove the subjects of an earlier run first.
    """
    work, root = out / WORK, find_root(refs)
    if overwrite:
        remove_results(out)
    for ref in refs:
        if not ref.is_unusable_folder:
            place_results(ref, out, work, root)
    if (work / "participants_findings.tsv").is_file():
        os.replace(work / "participants_findings.tsv", out / "participants_findings.tsv")
    write_description(out, root, readme=README, ignored=IGNORED)


def remove_results(out: Path) -> None:
    """Remove the subjects and the pages of an earlier run from a derivative."""
    for old in [*out.glob("sub-*"), *out.glob(SCAN_REPORTS)]:
        shutil.rmtree(old)


def place_results(
    ref: ScanRef,
    out: Path,
    work: Path,
    root: Path,
    *,
    names: Mapping[str, str] = NAMES,
    parameters: Mapping[str, Any] | None = None,
) -> None:
    """Move the images of one scan to their BIDS names, and write their sidecars.

    If the scan failed, the results of an earlier run are removed, unless its file is not there.

    Args:
        ref: the scan.
        out: folder of the derivative.
        work: folder of the detection.
        root: the BIDS dataset of the scan.
        names: as `NAMES`.
        parameters: entry `Parameters` of the sidecars; None for none.
    """
    targets = {kind: out / target_of(ref, kind, names) for kind in names}
    # The summary has the entities and the `desc` of the anomaly mask.
    mask = targets["anomaly_mask"]
    described = mask.with_name(mask.name.replace("mask.nii.gz", "summary.json"))
    summary = work / ref.name / "summary.json"
    if not summary.is_file():
        for image in targets.values():
            image.unlink(missing_ok=True)
            _find_sidecar(image).unlink(missing_ok=True)
        described.unlink(missing_ok=True)
        return
    source = f"bids:raw:{absolute(ref.image).relative_to(root).as_posix()}"
    for kind, target in targets.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        made = work / ref.name / f"{kind}.nii.gz"
        if made.is_file():  # otherwise the run that is resumed has moved it
            os.replace(made, target)
        if kind in MNI_IMAGES and not target.is_file():
            continue
        sidecar = {**read_sidecar(made), **describe_image(kind), "Sources": [source]}
        if kind not in MNI_IMAGES:
            sidecar["SpatialReference"] = source
        if kind.startswith("anomaly_map"):
            sidecar |= describe_unit(read_json(summary))
        if parameters is not None:
            sidecar["Parameters"] = dict(parameters)
        write_json(_find_sidecar(target), sidecar)
    write_text(described, summary.read_text(encoding="utf-8"))


def write_description(out: Path, root: Path, *, readme: str, ignored: str) -> None:
    """Write the files that describe the derivative as a whole.

    Args:
        out: folder of the derivative.
        root: the BIDS dataset of the scans.
        readme: content of README.md.
        ignored: content of .bidsignore: files that BIDS has no name for.
    """
    write_json(
        out / "dataset_description.json",
        {
            "Name": "maediff: anomaly detection in brain MRI",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "maediff", "Version": __version__}],
            "DatasetLinks": {"raw": Path(os.path.relpath(root, absolute(out))).as_posix()},
        },
    )
    write_text(out / "README.md", readme)
    write_text(out / ".bidsignore", ignored)


def image_of(out: Path, ref: ScanRef, kind: str) -> Path:
    """Return the path of an image: its BIDS name, or the detection's folder before it is moved.

    Args:
        out: folder of the derivative.
        ref: the scan.
        kind: a key of `NAMES`.
    """
    made = out / WORK / ref.name / f"{kind}.nii.gz"
    if ref.is_unusable_folder:
        return made
    target = out / target_of(ref, kind)
    return target if target.is_file() else made


def target_of(ref: ScanRef, kind: str, names: Mapping[str, str] = NAMES) -> Path:
    """Return the path of an image relative to the derivative: the scan's folder and entities.

    Args:
        ref: the scan.
        kind: a key of `names`.
        names: as `NAMES`.

    Example:
        >>> ref = ScanRef("sub-1", "", Path("d/sub-1/anat/sub-1_T1w.nii"), "d")
        >>> target_of(ref, "brain_mask").as_posix()
        'sub-1/anat/sub-1_desc-brain_mask.nii.gz'
    """
    stem = re.sub(r"\.nii(\.gz)?$", "", ref.image.name, flags=re.IGNORECASE)
    *entities, suffix = stem.split("_")
    kept = [entity for entity in entities if not entity.startswith("desc-")]
    parts = list(absolute(ref.image).parent.parts)
    folder = parts[max(i for i, part in enumerate(parts) if part == ref.subject) :]
    return Path(*folder) / "_".join([*kept, names[kind].format(suffix=suffix) + ".nii.gz"])


def _find_sidecar(image: Path) -> Path:
    return image.with_name(image.name.replace(".nii.gz", ".json"))


def read_sidecar(image: Path) -> dict[str, Any]:
    """Return the sidecar that the detection wrote beside an image; empty without one."""
    path = _find_sidecar(image)
    return read_json(path) if path.is_file() else {}


def find_root(refs: Sequence[ScanRef]) -> Path:
    """Return the BIDS dataset that holds all scans.

    Raises:
        InputError: a scan is in no BIDS dataset, or in another one.
    """
    roots = [_find_dataset(ref.image) for ref in refs]
    for ref, root in zip(refs, roots, strict=True):
        if root is None or not (ref.is_unusable_folder or is_in_own_folder(ref, root)):
            raise InputError(
                f"{ref.image}: not a scan of a BIDS dataset (dataset_description.json, sub-*/), "
                "so `bids_derivative` has no names for it; leave out `bids_derivative`"
            )
        if root != roots[0]:
            raise InputError(
                f"{ref.image}: in another BIDS dataset than {refs[0].image}, but a derivative "
                "belongs to one dataset; give one at a time"
            )
    assert roots[0] is not None
    return roots[0]


def is_in_own_folder(ref: ScanRef, root: Path) -> bool:
    """Return True if a scan is in the folder of its subject.

    Args:
        ref: the scan.
        root: the BIDS dataset that holds the scan.
    """
    subject = subject_in_dataset(ref.dataset, ref.subject)
    return subject.startswith("sub-") and subject in absolute(ref.image).relative_to(root).parts


def _find_dataset(image: Path) -> Path | None:
    parents = absolute(image).parents
    return next((path for path in parents if (path / "dataset_description.json").is_file()), None)


def absolute(path: Path) -> Path:
    """Return the absolute path, without `..`, and without following links.

    DataLad's files are links to outside the dataset's tree.
    """
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute keeps `..`
