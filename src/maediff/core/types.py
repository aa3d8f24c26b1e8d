"""Types and ranges that several packages share."""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float

Map = Float[np.ndarray, "n h w"]


Mask = Bool[np.ndarray, "n h w"]


Modality = Literal["T1w", "T2w", "FLAIR"]


Split = Literal["train", "val", "test"]


MODALITIES: tuple[str, ...] = get_args(Modality)


SPLITS: tuple[str, ...] = get_args(Split)


CEILING = 2.0
"""What intensities are clipped at. Networks see them up to 1; but a small bright lesion is among the brightest
hundredth of the brain, and clipped at the 99th percentile it cannot be told from the rest of that."""
