"""Files of a cohort: a folder for each scan, then the manifest, and cohort.json last.

An interrupted `maediff preprocess` leaves finished scans and no cohort; it can be resumed.
"""

import gzip
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maediff.cohort.cohort import COHORT_FORMAT
from maediff.cohort.splits import Splits, assign_splits
from maediff.core.files import write_json, write_table
from maediff.preparation.onto_grid import Prepared
from maediff.scans.nifti import write_volume
from maediff.scans.reference import ScanRef

MANIFEST_COLUMNS = (
    "subject",
    "session",
    "dataset",
    "split",
    "healthy",
    "image",
    "brain_mask",
    "lesion_mask",
    "source",
)
UINT16_STEPS = 32767
"""Steps per unit of intensity on disk: uint16 with slope 1 / 32767 holds [0, CEILING] to 2e-5."""
SCANNER_SPACE, MNI152_SPACE = 1, 4
"""Codes of the coordinate system in a NIfTI header (sform_code)."""


def write_subject(
    cohort: Path, ref: ScanRef, prepared: Prepared, settings: Mapping[str, Any]
) -> None:
    """Write the folder of one scan.

    `image.json` is written last: if it holds the same `settings`, the scan is finished.

    Args:
        cohort: folder of the cohort.
        ref: the scan that was prepared.
        prepared: the scan on the model's grid.
        settings: everything that decides the result: settings, input files and version.
    """
    folder, grid = cohort / ref.name, prepared.grid
    affine = grid.own_affine
    space = SCANNER_SPACE if grid.atlas_affine is None else MNI152_SPACE
    image = np.round(prepared.image * UINT16_STEPS).astype(np.uint16)
    write_volume(folder / "image.nii.gz", image, affine, slope=1 / UINT16_STEPS, space_code=space)
    write_volume(folder / "brain_mask.nii.gz", prepared.brain, affine, space_code=space)
    if prepared.lesion is not None:
        write_volume(folder / "lesion_mask.nii.gz", prepared.lesion, affine, space_code=space)
    lesion_free = prepared.lesion_free
    write_json(
        folder / "image.json",
        {
            "settings": dict(settings),
            "source": str(ref.image.absolute()),
            "healthy": ref.healthy,
            "extra": ref.extra,
            "grid": {
                "shape": list(grid.shape),
                "affine": affine.tolist(),
                "affine_to_scan": grid.affine.tolist(),
                "scale": grid.scale,
                "notes": grid.notes,
            },
            "lesion_free": None if lesion_free is None else lesion_free.tolist(),
            "record": prepared.record,
        },
    )


def write_cohort(cohort: Path, refs: Sequence[ScanRef], meta: Mapping[str, Any]) -> Splits:
    """Write manifest.csv and then cohort.json, which completes the cohort.

    Args:
        cohort: folder of the cohort.
        refs: the finished scans.
        meta: content of cohort.json besides the format, the numbers of scans and subjects, and the
            hash of all voxels.

    Returns:
        The splits of the subjects.
    """
    splits = assign_splits(refs)
    rows = []
    for ref in refs:
        row = {
            "subject": ref.subject,
            "session": ref.session,
            "dataset": ref.dataset,
            "split": splits.of(ref),
            "healthy": "" if ref.healthy is None else str(int(ref.healthy)),
            "image": f"{ref.name}/image.nii.gz",
            "brain_mask": f"{ref.name}/brain_mask.nii.gz",
            "lesion_mask": f"{ref.name}/lesion_mask.nii.gz" if ref.lesion_mask else "",
            "source": str(ref.image.absolute()),  # valid from every working folder
        }
        rows.append([row[column] for column in MANIFEST_COLUMNS])
    write_table(cohort / "manifest.csv", MANIFEST_COLUMNS, rows)
    numbers = {"n_scans": len(rows), "n_subjects": splits.counts}
    content = {"voxels": _hash_voxels(cohort / ref.name for ref in refs)}
    write_json(cohort / "cohort.json", {"format": COHORT_FORMAT, **meta, **numbers, **content})
    return splits


def _hash_voxels(folders: Iterable[Path]) -> str:
    """Return a hash of the images and masks of scans, so that `Cohort.hash` changes with them."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.glob("*.nii.gz")):
            with gzip.open(path) as file:  # compressed bytes depend on the version of zlib
                digest.update(hashlib.sha256(file.read()).digest())
    return digest.hexdigest()
