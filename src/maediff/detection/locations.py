"""Anatomical location of a point in MNI152: side, lobe and tissue.

    locate((-38, -10, 40))  ->  "left frontal lobe, white matter, juxtacortical"

Planes and lines in MNI152 bound the lobes (our choice, from the usual course of the central, the
lateral and the parieto-occipital sulcus and of the tentorium). They are approximate: within about
10 mm of a border, the neighbouring lobe may be the true one. Tissues come from the ICBM 2009a
probability maps that nilearn ships.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from maediff.anomaly.regions import Region
from maediff.preparation.atlas.reduced import Tissue, load_reduced_atlas

MIDLINE_MM = 3.0
TISSUES = {
    Tissue.FLUID: "cerebrospinal fluid",
    Tissue.GREY: "grey matter",
    Tissue.WHITE: "white matter",
    Tissue.PERIVENTRICULAR: "white matter, periventricular",
    Tissue.JUXTACORTICAL: "white matter, juxtacortical",
}


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
    return Location(side, _find_lobe(abs(x), y, z), _find_tissue(x, y, z))


def _find_lobe(x: float, y: float, z: float) -> str:
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


def _find_tissue(x: float, y: float, z: float) -> str:
    """Return the tissue of a point."""
    atlas = load_reduced_atlas()
    voxel = np.round(np.linalg.inv(atlas.tissues_affine) @ [x, y, z, 1.0])[:3].astype(int)
    at = tuple(np.clip(voxel, 0, np.array(atlas.tissues_2mm.shape) - 1))
    return TISSUES[Tissue(atlas.tissues_2mm[at])]
