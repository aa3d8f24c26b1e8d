"""A lesion in a DICOM head is where its slices say, or the series is refused.

experiments/reliability/lesion_position.csv holds the numbers of `measure_offset`.
"""

import numpy as np
import pytest

from helpers.brains import ball, made_brain, oblique
from helpers.dicom import PLANES, write_enhanced, write_series
from maediff.core.errors import InputError
from maediff.scans.read import read_scan

LESION = 900
DEGREES = (0, 0.01, 0.05, 0.1, 0.2, 1, 4, 10, 18, 20)
KINDS = ("classic", "oblique", "enhanced")
MAX_MM = 0.5


def measure_offset(folder, plane, degrees, kind):
    """Return the distance in mm between the lesion that is read and the true one.

    Each slice is moved along its own rows by the tangent of `degrees` times the distance of the
    slices, so the true position follows from the ImagePositionPatient of each slice.

    Raises:
        InputError: the series is refused.
    """
    data, _, affine = made_brain(shape=(30, 34, 24), spacing=(4.0, 4.5, 5.0))
    affine = oblique(affine) if kind == "oblique" else affine
    lesion = ball(data.shape, affine, (affine @ [20, 12, 17, 1])[:3], 6.0)
    data = np.where(lesion, LESION, np.round(data))
    (row, row_way), _, (cut, cut_way) = PLANES[plane]
    step_mm = np.tan(np.radians(degrees)) * np.linalg.norm(affine[:3, cut])
    direction = row_way * affine[:3, row] / np.linalg.norm(affine[:3, row])  # RAS, along a row

    def change(number, ds):
        moved = np.diag([-1.0, -1.0, 1.0]) @ (number * step_mm * direction)
        place = np.array(ds.ImagePositionPatient, float) + moved
        ds.ImagePositionPatient = [f"{x:.10g}" for x in place]
        return ds

    if kind == "enhanced":
        write_enhanced(folder / "x.dcm", data, affine, plane, change=change)
    else:
        write_series(folder, data, affine, plane, change=change)
    voxels = np.argwhere(lesion)
    numbers = voxels[:, cut] if cut_way > 0 else data.shape[cut] - 1 - voxels[:, cut]
    true = voxels @ affine[:3, :3].T + affine[:3, 3] + np.outer(numbers, step_mm * direction)
    scan = read_scan(folder)
    found = np.argwhere(scan.data > LESION - 50) @ scan.affine[:3, :3].T + scan.affine[:3, 3]
    return float(np.linalg.norm(found.mean(axis=0) - true.mean(axis=0)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("degrees", [0, 0.05, 4, 20])
def test_lesion_is_at_its_place_or_the_series_is_refused(tmp_path, plane, degrees, kind):
    try:
        offset_mm = measure_offset(tmp_path / "a", plane, degrees, kind)
    except InputError as error:
        assert degrees > 0 and "obliquely to their normal" in str(error)
    else:
        assert degrees < 1 and offset_mm < MAX_MM
