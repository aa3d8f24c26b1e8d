"""The skull-stripped MNI152 template that nilearn ships."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float


@dataclass(frozen=True, eq=False)
class Atlas:
    """The skull-stripped MNI152 template of nilearn, 1 mm, with axes along RAS.

    Args:
        t1: intensities in [0, 1].
        brain: brain mask.
        affine: voxel -> mm.
    """

    t1: Float[np.ndarray, "x y z"]
    brain: Bool[np.ndarray, "x y z"]
    affine: Float[np.ndarray, "4 4"]


@lru_cache(maxsize=1)
def load_atlas() -> Atlas:
    """Load the template, once per process (about 2 s)."""
    from nilearn import datasets

    t1 = datasets.load_mni152_template(resolution=1)
    brain = datasets.load_mni152_brain_mask(resolution=1)
    return Atlas(
        np.asarray(t1.dataobj, dtype=np.float32),
        np.asarray(brain.dataobj) > 0,
        np.asarray(t1.affine, np.float64),
    )
