"""Types and ranges that several packages share.

Index order: slices are (n, h, w), lowest first; volumes are (x, y, z), RAS+.
"""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float

Map = Float[np.ndarray, "n h w"]
"""A number for each pixel of a stack of slices: intensities or an anomaly map."""
Mask = Bool[np.ndarray, "n h w"]
"""A mask of a stack of slices."""
VolumeMask = Bool[np.ndarray, "x y z"]
"""A mask on the grid of a scan."""

Modality = Literal["T1w", "T2w", "FLAIR"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

CEILING = 2.0
"""Upper limit of prepared intensities; 1 is the 99th percentile of the brain.

Networks see intensities up to 1.
The range above 1 separates a small bright lesion from the brightest hundredth of the brain.
"""
