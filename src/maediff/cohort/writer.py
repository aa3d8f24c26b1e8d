"""A cohort's files, as `cohort` reads them: a folder for each scan, then the manifest, and cohort.json last of all.

A run of `maediff preprocess` that is stopped leaves whole scans and no cohort; --resume goes on from there.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maediff.cohort.cohort import FORMAT
from maediff.cohort.splits import split_of
from maediff.core.files import write_json, write_table
from maediff.preparation.onto_grid import Prepared
from maediff.scans.nifti import write_volume
from maediff.scans.reference import ScanRef

COLUMNS = (
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
LEVELS = 32767  # images lie on disk as uint16 with slope 1 / LEVELS: [0, CEILING] to 2e-5


def write_subject(
    cohort: Path, ref: ScanRef, prepared: Prepared, settings: Mapping[str, Any]
) -> None:
    """Write one scan's folder. `image.json` comes last: with it, and with the same `settings`, the scan is done."""
    folder, affine = cohort / ref.name, prepared.grid.own_affine
    space = 1 if prepared.grid.atlas_affine is None else 4  # scanner or MNI152
    levels = np.round(prepared.image * LEVELS).astype(np.uint16)
    write_volume(folder / "image.nii.gz", levels, affine, slope=1 / LEVELS, space_code=space)
    write_volume(folder / "brain_mask.nii.gz", prepared.brain, affine, space_code=space)
    if prepared.lesion is not None:
        write_volume(folder / "lesion_mask.nii.gz", prepared.lesion, affine, space_code=space)
    write_json(
        folder / "image.json",
        {
            "settings": dict(settings),
            "source": str(ref.image.absolute()),
            "healthy": ref.healthy,
            "extra": ref.extra,
            "grid": {
                "shape": list(prepared.grid.shape),
                "affine": affine.tolist(),
                "affine_to_scan": prepared.grid.affine.tolist(),
                "scale": prepared.grid.scale,
                "notes": prepared.grid.notes,
            },
            "lesion_free": None if prepared.lesion_free is None else prepared.lesion_free.tolist(),
            "record": prepared.record,
        },
    )


def write_cohort(cohort: Path, refs: Sequence[ScanRef], meta: Mapping[str, Any]) -> None:
    """Write manifest.csv and then cohort.json, which makes the folder a cohort."""
    rows = []
    for ref in refs:
        healthy = "" if ref.healthy is None else str(int(ref.healthy))
        files = [f"{ref.name}/{kind}.nii.gz" for kind in ("image", "brain_mask", "lesion_mask")]
        lesion = files[2] if ref.lesion_mask else ""
        split = ref.split or split_of(ref.dataset, ref.subject)
        source = str(ref.image.absolute())  # found again from any folder
        rows.append(
            [ref.subject, ref.session, ref.dataset, split, healthy, *files[:2], lesion, source]
        )
    write_table(cohort / "manifest.csv", COLUMNS, rows)
    write_json(cohort / "cohort.json", {"format": FORMAT, **meta, "n_scans": len(rows)})
