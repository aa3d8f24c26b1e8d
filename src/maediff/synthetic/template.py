"""The MNI152 template of nilearn and maps that synthetic brains are warped from.

Template: Fonov et al. 2011, https://doi.org/10.1016/j.neuroimage.2010.07.033

    1 mm   grey matter, white matter, fine structure
    2 mm   depth under the hull, distance to the ventricles,
           weight of the mantle (whose cortex gets new sulci), weight of the cerebrum

All positions are in mm of the template. The boxes and ellipsoids that separate parts of the brain
are our choice, set by eye.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from maediff.synthetic.fields import logistic


@dataclass(frozen=True)
class Template:
    """Maps of the MNI152 template.

    Args:
        tissue: grey matter, white matter and fine structure at 1 mm.
        tissue_origin: position of the first voxel of `tissue` (mm).
        maps: depth under the hull (mm), signed distance to the ventricles (mm), weight of the
            mantle and weight of the cerebrum, at 2 mm.
        maps_origin: position of the first voxel of `maps` (mm).
    """

    tissue: Float[np.ndarray, "3 x y z"]
    tissue_origin: Float[np.ndarray, " 3"]
    maps: Float[np.ndarray, "4 i j k"]
    maps_origin: Float[np.ndarray, " 3"]


def sample(maps: np.ndarray, origin: np.ndarray, step: float, y: np.ndarray) -> np.ndarray:
    """Interpolate each map linearly; outside the field of view the nearest voxel counts.

    Args:
        maps: maps on one grid.
        origin: position of the first voxel (mm).
        step: voxel size (mm).
        y: positions (mm).
    """
    voxels = (y - origin.reshape(3, *[1] * (y.ndim - 1))) / step
    return np.stack([ndimage.map_coordinates(m, voxels, order=1, mode="nearest") for m in maps])


@lru_cache(maxsize=1)
def load_template() -> Template:
    """Return the maps of the MNI152 template; the first call of a process takes about 3 s."""
    from nilearn import datasets

    t1, gm, wm = (
        load(resolution=1)
        for load in (
            datasets.load_mni152_template,
            datasets.load_mni152_gm_template,
            datasets.load_mni152_wm_template,
        )
    )
    origin = t1.affine[:3, 3]
    tissue = np.stack([np.asarray(image.dataobj, np.float32) for image in (gm, wm, t1)])
    # Fine structure: T1 minus the intensity of the tissues (CSF 0.28, GM 0.64, WM 0.90).
    explained = 0.28 + 0.36 * tissue[0] + 0.62 * tissue[1]
    tissue[2] = np.clip(ndimage.gaussian_filter(tissue[2] - explained, 0.7), -0.12, 0.12) * (
        tissue[:2].sum(0) > 0.8
    )
    brain = np.asarray(datasets.load_mni152_brain_mask(resolution=1).dataobj) > 0
    csf = brain & (tissue[:2].sum(0) < 0.5)
    brain, csf = brain[::2, ::2, ::2], csf[::2, ::2, ::2]
    depth = _signed_distance(brain)
    x, y, z = (
        o + 2.0 * np.arange(s).reshape([-1 if a == i else 1 for a in range(3)])
        for i, (o, s) in enumerate(zip(origin, brain.shape, strict=True))
    )
    ventricle = csf & (depth > 22) & (np.abs(x) < 42) & (y > -62) & (y < 38) & (z > -14) & (z < 34)
    # without the interhemispheric fissure
    ventricle &= ~((np.abs(x) < 3) & ((z > 8) | (y > 5) | (y < -30)))
    to_ventricle = -_signed_distance(ventricle)
    below = logistic(
        (z + 10.0 - 0.3 * (y + 40.0) + 0.22 * np.maximum(np.abs(x) - 20.0, 0.0)) / 2.0
    )
    # 0 in the brain stem and in front of it
    stem = logistic((np.hypot(np.abs(x) / 1.1, (y + 22.0) / 1.4) - 20.0) / 2.0)
    stem = np.maximum(stem, logistic((z - 4.0) / 2.0))
    cerebrum = np.where(y < -30.0, below, 1.0) * stem * np.ones(brain.shape)
    sylvian = ((np.abs(x) - 40.0) / 16.0) ** 2 + ((y - 0.0) / 28.0) ** 2 + ((z - 4.0) / 14.0) ** 2
    medial = logistic((np.abs(x) - 9.0) / 1.5)
    deep = logistic((23.0 - depth) / 2.0)
    mantle = cerebrum * deep * logistic((sylvian - 1.0) / 0.15) * medial
    maps = ndimage.gaussian_filter(np.stack([mantle, cerebrum]), (0, 1, 1, 1))
    maps = np.concatenate([np.stack([depth, to_ventricle]), maps]).astype(np.float32)
    return Template(tissue, np.asarray(origin), maps, np.asarray(origin))


def _signed_distance(mask: np.ndarray) -> np.ndarray:
    """Return the depth inside a mask on a 2 mm grid, in mm; negative outside."""
    inside = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1, 1:-1]
    return np.asarray(
        np.where(mask, 2.0 * inside - 1.0, 1.0 - 2.0 * ndimage.distance_transform_edt(~mask))
    )
