"""Anomaly maps that lie in a folder: of `maediff detect`, or of any other program.

    MAPS/<subject>/anomaly_map.nii.gz   or   MAPS/<subject>.nii.gz

(or .nii) on the scan's own grid or on the cohort's, with values in [0, 1]. For a registered cohort the second lies in
MNI152.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maediff.cohort.cohort import SubjectSlices
from maediff.core.errors import InputError
from maediff.core.files import read_json
from maediff.core.types import Map
from maediff.preparation.resample import resample
from maediff.scans.nifti import read_nifti
from maediff.scans.volume import Volume, slices_to_volume, volume_to_slices

ENDS = (".nii.gz", ".nii")
ROUNDING = (
    1e-5  # how far beyond 0 and 1 a value may lie: sums in single precision, scaled integers
)


def is_map_folder(path: Path) -> bool:
    """Whether a folder holds maps rather than a run."""
    if not path.is_dir() or (path / "config.json").is_file():
        return False
    return any(any(path.glob(f"*/anomaly_map{end}")) or any(path.glob(f"*{end}")) for end in ENDS)


def already_filtered(folder: Path) -> bool:
    """Whether the maps are those of `maediff detect`, which are post-processed already."""
    return (folder / "detect.json").is_file()


def check_maps(
    folder: Path,
    subjects: Sequence[SubjectSlices],
    modality: str,
    sources: Mapping[str, Path] | None = None,
) -> None:
    """Read every map once, so that one that does not fit is refused before anything is scored.

    Args:
        sources: by subject, the scan that the cohort's images were made from.

    Raises:
        InputError: as `read_map` does, or naming the subjects that have no map, or the contrast if `maediff detect` had
            another.
    """
    if already_filtered(folder):
        made_for = read_json(folder / "detect.json", remedy="run `maediff detect` again").get(
            "modality"
        )
        if made_for != modality:
            raise InputError(
                f"{folder}: maps of {made_for} scans, but the cohort holds {modality}; give a cohort of their contrast"
            )
    missing = sorted({s.name for s in subjects if _path(folder, s.name) is None})
    if missing:
        raise InputError(
            f"{folder}: no anomaly map of {', '.join(missing[:5])}{' and others' if len(missing) > 5 else ''}; each "
            "subject of the splits that are scored and that thresholds are taken from (--calibrate-split) needs "
            "SUBJECT/anomaly_map.nii.gz or SUBJECT.nii.gz"
        )
    for s in {s.name: s for s in subjects}.values():
        read_map(folder, s, (sources or {}).get(s.name))


def read_map(folder: Path, s: SubjectSlices, source: Path | None = None) -> Map:
    """The subject's map as slices on the cohort's grid.

    Args:
        source: the scan that the cohort's images were made from. Where it is still there, a map that is not on the
            cohort's grid has to be on the scan's; where it is not, on any that holds the brain as the scan does.

    Raises:
        InputError: values outside [0, 1], or another grid.
    """
    path = _path(folder, s.name)
    assert path is not None  # check_maps
    volume = read_nifti(path, allow_constant=True)
    low, high = float(volume.data.min()), float(volume.data.max())
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise InputError(
            f"{path}: values {low:.9g} to {high:.9g}, and anomaly maps hold 0 to 1; scale the "
            "maps of all subjects alike"
        )
    values = volume.data.clip(0, 1)
    shape = (s.images.shape[2], s.images.shape[1], s.images.shape[0])
    if _off_mm(volume, shape, s.affine) == 0:
        return np.asarray(volume_to_slices(values))
    if source is not None and source.is_file():
        scan = read_nifti(source)
        if off_mm := _off_mm(volume, scan.data.shape, scan.affine):
            shift_mm = min(off_mm, _off_mm(volume, shape, s.affine))
            lies = f", but lies up to {shift_mm:.2g} mm off" if math.isfinite(shift_mm) else ""
            raise InputError(
                f"{path}: a map of {_times(volume.data.shape)} voxels of {_times(volume.spacing_mm)} mm, which is "
                f"neither the grid of its scan {source} ({_times(scan.data.shape)} voxels of {_times(scan.spacing_mm)} "
                f"mm) nor the cohort's ({_times(shape)} of {_times(s.spacing_mm)} mm){lies}; resample it onto the scan"
            )
    to_map = np.linalg.inv(volume.affine) @ s.affine_to_scan
    _check_holds_brain(path, volume, s, to_map)
    return np.asarray(volume_to_slices(resample(values, to_map, shape, "linear")))


def _off_mm(volume: Volume, shape: Sequence[int], affine: np.ndarray) -> float:
    """How far a corner lies from where it should; 0 up to a tenth of a voxel, infinite with other numbers of voxels."""
    if volume.data.shape != tuple(shape):
        return math.inf
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in shape], [1])).reshape(4, -1)
    drift_mm = float(np.linalg.norm(((volume.affine - affine) @ corners)[:3], axis=0).max())
    return drift_mm if drift_mm > 0.1 * float(volume.spacing_mm.min()) else 0.0


def _times(sizes: Iterable[Any]) -> str:
    return " x ".join(f"{size:.4g}" for size in sizes)


def _path(folder: Path, subject: str) -> Path | None:
    found = [
        path
        for end in ENDS
        for path in (folder / subject / f"anomaly_map{end}", folder / f"{subject}{end}")
    ]
    return next((path for path in found if path.is_file()), None)


def _check_holds_brain(path: Path, volume: Volume, s: SubjectSlices, to_map: np.ndarray) -> None:
    """`to_map` takes a voxel of the cohort's grid to one of the map."""
    voxels = np.argwhere(slices_to_volume(s.brain)) @ to_map[:3, :3].T + to_map[:3, 3]
    margin = (
        np.linalg.norm(to_map[:3, :3], axis=1) + 1
    )  # the cohort's cells may be larger than the map's voxels
    if (voxels < -margin).any() or (voxels > np.array(volume.data.shape) - 1 + margin).any():
        raise InputError(
            f"{path}: does not cover the brain of {s.name} in the cohort; is it another scan's map?"
        )
