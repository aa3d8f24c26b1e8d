"""The MNI152 template at 4 and 2 mm, with all that detection needs of it.

levels         image and mask of the metric at 4 and 2 mm      registration
brain_2mm      brain mask                                      quality control
t1_4mm         blurred intensities                             quality control
deep_4mm       brain without its outer 12 mm                   quality control
tissues_2mm    tissue classes                                  locations of regions
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8

FILE = Path(__file__).with_name("mni152.npz")
LEVELS_MM = (4.0, 2.0)


class Tissue(IntEnum):
    """Tissue class of a voxel."""

    FLUID = 0
    GREY = 1
    WHITE = 2
    PERIVENTRICULAR = 3
    """White matter near the ventricles."""
    JUXTACORTICAL = 4
    """White matter near the cortex."""


@dataclass(frozen=True, eq=False)
class AtlasLevel:
    """The template on cubes of one size.

    Args:
        image: intensities plus 0.1 in the brain, 0 outside.
        mask: voxels that the metric of registration covers.
        origin_mm: centre of the first voxel, in mm.
    """

    image: Float[np.ndarray, "x y z"]
    mask: UInt8[np.ndarray, "x y z"]
    origin_mm: Float[np.ndarray, " 3"]


@dataclass(frozen=True, eq=False)
class ReducedAtlas:
    """The reduced template; axes are along RAS.

    Args:
        levels: the template by the size of its cubes, 4 and 2 mm.
        brain_mm3: volume of the brain.
        centre_mm: centre of mass of the brain.
        brain_2mm: brain mask: every second voxel of the full template.
        t1_4mm: every fourth voxel of the full template, blurred by 1.5 mm.
        deep_4mm: cells of `t1_4mm` that are more than 12 mm inside the brain.
        affine_2mm: voxel of `brain_2mm` -> mm.
        tissues_2mm: values of `Tissue`.
        tissues_affine: voxel of `tissues_2mm` -> mm.
    """

    levels: Mapping[float, AtlasLevel]
    brain_mm3: float
    centre_mm: Float[np.ndarray, " 3"]
    brain_2mm: Bool[np.ndarray, "x y z"]
    t1_4mm: Float[np.ndarray, "a b c"]
    deep_4mm: Bool[np.ndarray, "a b c"]
    affine_2mm: Float[np.ndarray, "4 4"]
    tissues_2mm: UInt8[np.ndarray, "i j k"]
    tissues_affine: Float[np.ndarray, "4 4"]


@lru_cache(maxsize=1)
def load_reduced_atlas() -> ReducedAtlas:
    """Load the reduced template, once per process."""
    with np.load(FILE, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    for array in arrays.values():
        array.flags.writeable = False
    levels = {
        mm: AtlasLevel(*(arrays[f"{name}_{mm:g}mm"] for name in ("image", "mask", "origin")))
        for mm in LEVELS_MM
    }
    return ReducedAtlas(
        levels=levels,
        brain_mm3=float(arrays["brain_mm3"].item()),
        centre_mm=arrays["centre_mm"],
        brain_2mm=arrays["brain_2mm"].astype(bool),
        t1_4mm=arrays["t1_4mm"],
        deep_4mm=arrays["deep_4mm"].astype(bool),
        affine_2mm=arrays["affine_2mm"],
        tissues_2mm=arrays["tissues_2mm"],
        tissues_affine=arrays["tissues_affine"],
    )
