"""A BIDS derivative out of a detection: the same results under BIDS names, beside a plain DETECT folder in hiding.

    OUT/dataset_description.json, README.md, report.html, .bidsignore
        sub-01/ses-2/anat/sub-01_ses-2_desc-anomaly_T1w.nii.gz      anomaly map
                          sub-01_ses-2_desc-anomaly_mask.nii.gz     anomaly mask
                          sub-01_ses-2_desc-healthy_T1w.nii.gz      healthy reference
                          sub-01_ses-2_desc-brain_mask.nii.gz       brain mask
                          sub-01_ses-2_desc-anomaly_summary.json    summary.json
        .detect/          summaries and slices of the report, by which a stopped run is resumed

Names: <entities of the scan>_desc-<what>_<suffix> (BIDS 1.9, derivatives, imaging). The map keeps the scan's suffix:
BIDS has none for it, and it is no probability (`probseg`).
"""

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maediff import __version__
from maediff.core.errors import InputError
from maediff.core.files import fresh_folder, refuse_inputs_inside_output, write_json, write_text
from maediff.scans.reference import ScanRef, subject_in_dataset

WORK = ".detect"
BIDS_VERSION = "1.9.0"
NAMES = {  # file of DETECT -> name after the entities; {suffix} is the scan's
    "anomaly_map": "desc-anomaly_{suffix}",
    "anomaly_mask": "desc-anomaly_mask",
    "healthy_reference": "desc-healthy_{suffix}",
    "brain_mask": "desc-brain_mask",
}
SIDECARS: dict[str, dict[str, Any]] = {
    "anomaly_map": {
        "Description": "Anomaly map: residual between the scan and its healthy reference, 0 to 1, post-processed; 0 "
        "outside the brain mask",
        "SkullStripped": True,
    },
    "anomaly_mask": {
        "Type": "Lesion",
        "Description": "Where the anomaly map is above the threshold",
    },
    "healthy_reference": {
        "Description": "The scan as the model redraws it as if healthy, in the scan's own intensities",
        "SkullStripped": True,
    },
    "brain_mask": {"Type": "Brain"},
}
IGNORED = "*_summary.json\nreport.html\nparticipants_findings.tsv\n"
README = """Anomaly maps and masks, healthy references and brain masks of a BIDS dataset, by maediff.

`report.html` shows them. For research, not for diagnosis. Names are explained in maediff's docs/reference/summary.md.
"""


def prepare_derivative(
    refs: Sequence[ScanRef], out: Path, *, resume: bool = False, overwrite: bool = False
) -> Path:
    """The folder inside `out` to run the detection in; what `out` holds is touched by `write_derivative` only.

    Raises:
        InputError: a scan is not of a BIDS dataset, or scans are of several; `out` exists, or holds an input.
    """
    root_of(refs)
    targets: dict[Path, ScanRef] = {}
    for ref in refs:
        twin = targets.setdefault(target_of(ref, "anomaly_mask"), ref)
        if twin is not ref:
            raise InputError(
                f"{twin.image} and {ref.image}: would be written under one BIDS name; give one of them"
            )
    refuse_inputs_inside_output(out, [file for ref in refs for file in ref.files])
    return fresh_folder(out, overwrite=False, resume=resume or overwrite) / WORK


def write_derivative(refs: Sequence[ScanRef], out: Path, *, overwrite: bool = False) -> None:
    """Move the images of the detection in `out` to their BIDS names, and write what describes them.

    Args:
        overwrite: remove the subjects of an earlier run first.
    """
    work, root = out / WORK, root_of(refs)
    for old in out.glob("sub-*") if overwrite else ():
        shutil.rmtree(old)
    for ref in refs:
        summary = work / ref.name / "summary.json"
        if not summary.is_file():  # it failed; what an earlier run made of it goes
            for kind in NAMES:
                image = out / target_of(ref, kind)
                image.unlink(missing_ok=True)
                _sidecar(image).unlink(missing_ok=True)
            _summary(ref, out).unlink(missing_ok=True)
            continue
        source = f"bids:raw:{_absolute(ref.image).relative_to(root).as_posix()}"
        for kind in NAMES:
            target = out / target_of(ref, kind)
            target.parent.mkdir(parents=True, exist_ok=True)
            made = work / ref.name / f"{kind}.nii.gz"
            if made.is_file():  # else moved by the run that this one resumes
                os.replace(made, target)
            write_json(_sidecar(target), {**SIDECARS[kind], "Sources": [source]})
        write_text(_summary(ref, out), summary.read_text(encoding="utf-8"))
    for name in ("report.html", "participants_findings.tsv"):
        if (work / name).is_file():
            os.replace(work / name, out / name)
    write_json(
        out / "dataset_description.json",
        {
            "Name": "maediff: anomaly detection in brain MRI",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "maediff", "Version": __version__}],
            "DatasetLinks": {"raw": Path(os.path.relpath(root, _absolute(out))).as_posix()},
        },
    )
    write_text(out / "README.md", README)
    write_text(out / ".bidsignore", IGNORED)


def image_of(out: Path, ref: ScanRef, kind: str) -> Path:
    """Return the path of an image: under its BIDS name, or in the detection's own folder before it is moved."""
    target = out / target_of(ref, kind)
    return target if target.is_file() else out / WORK / ref.name / f"{kind}.nii.gz"


def target_of(ref: ScanRef, kind: str) -> Path:
    """Where a file of DETECT goes, relative to the derivative: the scan's own folder and entities.

    >>> target_of(ScanRef("sub-1", "", Path("d/sub-1/anat/sub-1_T1w.nii"), "d"), "brain_mask").as_posix()
    'sub-1/anat/sub-1_desc-brain_mask.nii.gz'
    """
    *entities, suffix = re.sub(r"\.nii(\.gz)?$", "", ref.image.name, flags=re.IGNORECASE).split(
        "_"
    )
    kept = [entity for entity in entities if not entity.startswith("desc-")]
    parts = list(_absolute(ref.image).parent.parts)
    folder = parts[max(i for i, part in enumerate(parts) if part == ref.subject) :]
    return Path(*folder) / "_".join([*kept, NAMES[kind].format(suffix=suffix) + ".nii.gz"])


def _sidecar(image: Path) -> Path:
    return image.with_name(image.name.replace(".nii.gz", ".json"))


def _summary(ref: ScanRef, out: Path) -> Path:
    mask = out / target_of(ref, "anomaly_mask")
    return mask.with_name(mask.name.replace("mask.nii.gz", "summary.json"))


def root_of(refs: Sequence[ScanRef]) -> Path:
    """The BIDS dataset that all scans are of.

    Raises:
        InputError: one is not of a BIDS dataset, or of another one.
    """
    roots = [_dataset_of(ref.image) for ref in refs]
    for ref, root in zip(refs, roots, strict=True):
        subject = subject_in_dataset(ref.dataset, ref.subject)
        if (
            root is None
            or not subject.startswith("sub-")
            or subject not in _absolute(ref.image).relative_to(root).parts
        ):
            raise InputError(
                f"{ref.image}: not a scan of a BIDS dataset (dataset_description.json, sub-*/), so "
                "--bids-derivative has no names for it; leave the flag out"
            )
        if root != roots[0]:
            raise InputError(
                f"{ref.image}: of another BIDS dataset than {refs[0].image}, and a derivative is of one; "
                "give one at a time"
            )
    assert roots[0] is not None
    return roots[0]


def _dataset_of(image: Path) -> Path | None:
    return next(
        (
            path
            for path in _absolute(image).parents
            if (path / "dataset_description.json").is_file()
        ),
        None,
    )


def _absolute(path: Path) -> Path:
    """Without following links: datalad's files are links out of the dataset's tree."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute keeps `..`
