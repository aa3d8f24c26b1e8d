"""Anatomical location of a point in MNI152: side, lobe and tissue.

    locate((-38, -10, 40))  ->  "left frontal lobe, white matter, juxtacortical"

Planes and lines in MNI152 bound the lobes (our choice, from the usual course of the central, the
lateral and the parieto-occipital sulcus and of the tentorium). They are approximate: within about
10 mm of a border, the neighbouring lobe may be the true one. Tissues come from the ICBM 2009a
probability maps that nilearn ships.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from maediff.anomaly.regions import Region

MIDLINE_MM = 3.0
PERIVENTRICULAR_MM = 10.0
JUXTACORTICAL_MM = 3.0
# Box around the lateral and third ventricles, in MNI152 mm along x, y and z.
VENTRICLE_BOX_MM = ((-32.0, 32.0), (-55.0, 35.0), (-14.0, 32.0))


@dataclass(frozen=True)
class Location:
    """An anatomical location.

    Args:
        side: "left", "right" or "midline".
        lobe: "frontal lobe", "parietal lobe", "temporal lobe", "occipital lobe",
            "basal ganglia and thalamus", "cerebellum" or "brainstem".
        tissue: "grey matter", "white matter" or "cerebrospinal fluid". White matter near the
            ventricles or near the cortex is also "periventricular" or "juxtacortical".
    """

    side: str
    lobe: str
    tissue: str

    def __str__(self) -> str:
        """Return "left frontal lobe, white matter, juxtacortical"."""
        return f"{self.side} {self.lobe}, {self.tissue}"


@dataclass(frozen=True, eq=False)
class _Tissues:
    """Tissue classes of MNI152 at 2 mm, and distances in mm to ventricles and cortex."""

    affine: Float[np.ndarray, "4 4"]
    grey: Bool[np.ndarray, "x y z"]
    white: Bool[np.ndarray, "x y z"]
    to_ventricles: Float[np.ndarray, "x y z"]
    to_cortex: Float[np.ndarray, "x y z"]


def locate_region(region: Region, to_mni: Float[np.ndarray, "4 4"] | None) -> Region:
    """Return a region with its position in MNI152 and its anatomical location.

    Args:
        region: with its centre in mm of the scan.
        to_mni: mm of the scan -> mm of MNI152; None leaves the region as it is.
    """
    if to_mni is None:
        return region
    x, y, z = (round(float(mm), 1) for mm in (to_mni @ [*region.center_mm, 1.0])[:3])
    found = locate((x, y, z))
    return replace(region, mni_mm=(x, y, z), side=found.side, location=str(found))


def locate(mni_mm: tuple[float, float, float]) -> Location:
    """Return the location of a point.

    Args:
        mni_mm: x (right), y (anterior) and z (superior) in MNI152, in mm.
    """
    x, y, z = (float(value) for value in mni_mm)
    side = "midline" if abs(x) < MIDLINE_MM else ("left" if x < 0 else "right")
    return Location(side, _lobe(abs(x), y, z), _tissue(x, y, z))


def _lobe(x: float, y: float, z: float) -> str:
    """Return the lobe of a point at distance `x` from the midline."""
    if x < 15 and -45 < y < -8 and z < -8 - 0.15 * (y + 8):
        return "brainstem"
    tentorium = -24 + 18 * float(np.exp(-((x / 14) ** 2)))
    if y < -34 and z < tentorium:
        return "cerebellum"
    if x < 34 and -32 < y < 20 and -8 < z < 18:
        return "basal ganglia and thalamus"
    lateral_sulcus = -1.5 - 0.45 * y
    if x > (18 if z < 5 else 34) and -58 < y < 22 and z < lateral_sulcus:
        return "temporal lobe"
    if y < -60 - 0.55 * max(z, 0):
        return "occipital lobe"
    central_sulcus = -12 - 0.3 * (z - 15)
    return "frontal lobe" if y > central_sulcus else "parietal lobe"


def _tissue(x: float, y: float, z: float) -> str:
    tissues = _load_tissues()
    voxel = np.round(np.linalg.inv(tissues.affine) @ [x, y, z, 1.0])[:3].astype(int)
    at = tuple(np.clip(voxel, 0, np.array(tissues.grey.shape) - 1))
    if tissues.white[at]:
        if tissues.to_ventricles[at] <= PERIVENTRICULAR_MM:
            return "white matter, periventricular"
        if tissues.to_cortex[at] <= JUXTACORTICAL_MM:
            return "white matter, juxtacortical"
        return "white matter"
    return "grey matter" if tissues.grey[at] else "cerebrospinal fluid"


@lru_cache(maxsize=1)
def _load_tissues() -> _Tissues:
    """Load the tissue maps of MNI152 (about 2 s, once per process)."""
    from nilearn import datasets

    def read(image: Any) -> np.ndarray:
        return np.asarray(image.dataobj, dtype=np.float32)

    grey_image = datasets.load_mni152_gm_template(resolution=2)
    grey, white = read(grey_image), read(datasets.load_mni152_wm_template(resolution=2))
    brain = read(datasets.load_mni152_brain_mask(resolution=2)) > 0
    affine = np.asarray(grey_image.affine, dtype=np.float64)
    fluid = brain & (grey + white < 0.5)
    index = np.stack(np.meshgrid(*map(np.arange, brain.shape), indexing="ij"), axis=-1)
    mm = index @ affine[:3, :3].T + affine[:3, 3]
    in_box = np.all(
        [
            (low < mm[..., axis]) & (mm[..., axis] < high)
            for axis, (low, high) in enumerate(VENTRICLE_BOX_MM)
        ],
        axis=0,
    )
    # Sulci reach into the box from its sides; the ventricles are its largest component.
    labels, _ = ndimage.label(fluid & in_box)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    ventricles = labels == sizes.argmax()
    is_grey, is_white = (grey >= white) & ~fluid & brain, (white > grey) & ~fluid & brain
    cortex = is_grey & ~ndimage.binary_dilation(in_box & brain, iterations=1)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)

    def distance(mask: np.ndarray) -> np.ndarray:
        return np.asarray(ndimage.distance_transform_edt(~mask, sampling=spacing), np.float32)

    return _Tissues(affine, is_grey, is_white, distance(ventricles), distance(cortex))
