"""Sessions of synthetic brains: a T1w and a FLAIR of one person."""

from pathlib import Path

import numpy as np

from helpers.brains import ball, made_brain, save


def made_scan(seed=0, radii_mm=(50.0, 62.0, 42.0)):
    """Return (data, brain mask, affine) of a stripped scan with a bright ball."""
    data, brain, affine = made_brain((60, 72, 12), (2.0, 2.0, 7.0), radii_mm, seed)
    bright = ball(data.shape, affine, (15, -10, 0), 15) & brain
    return np.where(bright, 230, data).astype(np.float32), brain, affine


def inverted(data):
    """Return the scan in another contrast, with the ball still bright."""
    return np.where((data > 0) & (data < 230), 240 - data, data).astype(np.float32)


def made_session(folder: Path) -> Path:
    """Write T1.nii.gz and FLAIR.nii.gz of one person into `folder`, on one grid."""
    data, _, affine = made_scan()
    save(folder / "T1.nii.gz", data, affine)
    save(folder / "FLAIR.nii.gz", inverted(data), affine)
    return folder
