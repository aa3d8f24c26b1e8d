"""Anomaly maps in a folder, made by `maediff detect` or by another program.

    MAPS/<scan>/anomaly_map.nii.gz   or   MAPS/<scan>.nii.gz   (or .nii)

<scan> is the scan's name in the cohort. Values are in [0, 1]. Maps of `maediff detect` are in
units of a threshold, and are scaled back to the residual. The grid is that of the scan or
that of the cohort, which is MNI152 for a registered cohort.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
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

ENDINGS = (".nii.gz", ".nii")
ROUNDING = 1e-5
"""Tolerance below 0 and above 1, for sums in single precision and scaled integers."""
GRID_TOLERANCE = 0.1
"""Largest distance between the corners of two equal grids, as a share of a voxel."""


def is_map_folder(path: Path) -> bool:
    """Return True if a folder holds anomaly maps and is no run folder."""
    if not path.is_dir() or (path / "config.json").is_file():
        return False
    return any(
        any(path.glob(f"*/anomaly_map{ending}")) or any(path.glob(f"*{ending}"))
        for ending in ENDINGS
    )


def is_filtered(folder: Path) -> bool:
    """Return True if the maps are those of `maediff detect`, which are post-processed already."""
    return (folder / "detect.json").is_file()


def check_maps(
    folder: Path,
    scans: Sequence[SubjectSlices],
    modality: str,
    sources: Mapping[str, Path] | None = None,
) -> None:
    """Read every map once, to refuse an invalid one before anything is scored.

    Args:
        folder: folder of maps.
        scans: scans that need a map.
        modality: contrast of the cohort.
        sources: scan name -> file that the cohort's image was made from.

    Raises:
        InputError: a scan has no map, a map is invalid (`read_map`), or `maediff detect` made the
            maps for another contrast.
    """
    if is_filtered(folder):
        record = read_json(folder / "detect.json", remedy="run `maediff detect` again")
        made_for = record.get("modality")
        if made_for != modality:
            raise InputError(
                f"{folder}: maps of {made_for} scans, but the cohort holds {modality}; "
                "give a cohort of the same contrast"
            )
    by_name = {scan.name: scan for scan in scans}
    missing = sorted(name for name in by_name if _find_map(folder, name) is None)
    if missing:
        others = " and others" if len(missing) > 5 else ""
        raise InputError(
            f"{folder}: no anomaly map of {', '.join(missing[:5])}{others}; each scan of "
            "`score_split` and `calibrate_split` needs SUBJECT/anomaly_map.nii.gz or "
            "SUBJECT.nii.gz"
        )
    for name, scan in by_name.items():
        read_map(folder, scan, (sources or {}).get(name))


def read_map(folder: Path, scan: SubjectSlices, source: Path | None = None) -> Map:
    """Return the map of a scan as slices on the cohort's grid.

    Args:
        folder: folder of maps.
        scan: the scan in the cohort.
        source: file that the cohort's image was made from. If the file exists, a map that is not
            on the cohort's grid must be on the grid of this file. Otherwise it may be on any grid
            that covers the brain.

    Raises:
        InputError: values outside [0, 1], or another grid.
    """
    path = _find_map(folder, scan.name)
    assert path is not None  # check_maps
    volume = read_nifti(path, allow_constant=True)
    scale = _read_scale(folder)
    if scale is not None:  # the residual, as of a model that is scored by its name
        volume = replace(volume, data=(volume.data * scale).astype(np.float32))
    low, high = float(volume.data.min()), float(volume.data.max())
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise InputError(
            f"{path}: values {low:.9g} to {high:.9g}, but anomaly maps hold 0 to 1; "
            "scale the maps of all scans by the same factor"
        )
    values = volume.data.clip(0, 1)
    shape = (scan.images.shape[2], scan.images.shape[1], scan.images.shape[0])
    if _grid_distance_mm(volume, shape, scan.affine) == 0:
        return np.asarray(volume_to_slices(values))
    if source is not None and source.is_file():
        _check_on_scan(path, volume, read_nifti(source), source, scan)
    to_map = np.linalg.inv(volume.affine) @ scan.affine_to_scan
    _check_covers_brain(path, volume, scan, to_map)
    return np.asarray(volume_to_slices(resample(values, to_map, shape, "linear")))


def _read_scale(folder: Path) -> float | None:
    """Return the factor from the maps of `maediff detect` to residuals; None for other maps."""
    if not is_filtered(folder):
        return None
    scale = read_json(folder / "detect.json", remedy="run `maediff detect` again").get("scale")
    return None if scale is None else float(scale)


def _check_on_scan(
    path: Path, volume: Volume, original: Volume, source: Path, scan: SubjectSlices
) -> None:
    """Refuse a map that is neither on the grid of its scan nor on that of the cohort.

    Args:
        path: file of the map.
        volume: the map.
        original: the scan on its own grid.
        source: file of `original`.
        scan: the scan in the cohort.
    """
    distance_mm = _grid_distance_mm(volume, original.data.shape, original.affine)
    if not distance_mm:
        return
    shape = (scan.images.shape[2], scan.images.shape[1], scan.images.shape[0])
    shift_mm = min(distance_mm, _grid_distance_mm(volume, shape, scan.affine))
    shifted = f", but shifted by up to {shift_mm:.2g} mm" if math.isfinite(shift_mm) else ""
    raise InputError(
        f"{path}: a map of {_format_sizes(volume.data.shape)} voxels of "
        f"{_format_sizes(volume.spacing_mm)} mm, which is neither the grid of its scan {source} "
        f"({_format_sizes(original.data.shape)} voxels of {_format_sizes(original.spacing_mm)} "
        f"mm) nor the cohort's ({_format_sizes(shape)} of {_format_sizes(scan.spacing_mm)} mm)"
        f"{shifted}; resample it onto the scan"
    )


def _grid_distance_mm(volume: Volume, shape: Sequence[int], affine: np.ndarray) -> float:
    """Return the largest distance between corresponding corners of two grids.

    Returns:
        Millimetres; 0 within the tolerance, infinity for different numbers of voxels.
    """
    if volume.data.shape != tuple(shape):
        return math.inf
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in shape], [1])).reshape(4, -1)
    distances_mm = np.linalg.norm(((volume.affine - affine) @ corners)[:3], axis=0)
    largest_mm = float(distances_mm.max())
    return largest_mm if largest_mm > GRID_TOLERANCE * float(volume.spacing_mm.min()) else 0.0


def _format_sizes(sizes: Iterable[Any]) -> str:
    return " x ".join(f"{size:.4g}" for size in sizes)


def _find_map(folder: Path, name: str) -> Path | None:
    """Return the file of a scan's map; None if there is none."""
    candidates = [
        path
        for ending in ENDINGS
        for path in (folder / name / f"anomaly_map{ending}", folder / f"{name}{ending}")
    ]
    return next((path for path in candidates if path.is_file()), None)


def _check_covers_brain(
    path: Path, volume: Volume, scan: SubjectSlices, to_map: np.ndarray
) -> None:
    """Refuse a map that does not cover the brain of its scan.

    Args:
        path: file of the map.
        volume: the map.
        scan: the scan in the cohort.
        to_map: voxel of the cohort's grid -> voxel of the map.
    """
    voxels = np.argwhere(slices_to_volume(scan.brain)) @ to_map[:3, :3].T + to_map[:3, 3]
    # A voxel of the cohort may be larger than a voxel of the map.
    margin = np.linalg.norm(to_map[:3, :3], axis=1) + 1
    if (voxels < -margin).any() or (voxels > np.array(volume.data.shape) - 1 + margin).any():
        raise InputError(
            f"{path}: does not cover the brain of {scan.name} in the cohort; "
            "check that it is the map of this scan"
        )
