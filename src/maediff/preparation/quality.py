"""Whether a scan and its brain mask look like a head: numbers, and flags where a number is out of range.

    brain_ml             too small or too large a brain (prepare_scan)
    atlas_overlap        Dice of the brain, aligned to MNI152, with MNI152's own; where the scan sees both
    atlas_coverage       share of MNI152's brain that the scan's field of view holds
    atlas_stretch        the largest over the smallest scaling of that alignment: half a brain has to be drawn out
    atlas_information    mutual information with the template inside both brains, at 4 mm: noise has none
    atlas_correlation    rank correlation with the template (T1w) where that is brighter than fluid: T2w runs against it
    atlas_turned         how much better the scan fits upside down or back to front; a head fits clearly worse
    empty_share          voxels in the brain that are exactly 0

The alignment is the registration's, or a quick one made for this. A flag never stops a scan; it stands in qc.csv, in
the summary and in the report, with `picture`: the scan with the brain's outline.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as config
from scipy import ndimage, stats

from maediff.preparation.registration import Alignment, load_atlas
from maediff.preparation.resample import resample
from maediff.scans.volume import Volume

LEVELS = 8  # classes of intensity
FLUID = 0.35  # of the template's cells, the darkest


@config(frozen=True, config=ConfigDict(extra="forbid"))
class QualityConfig:
    """What is out of range.

    Args:
        align: whether to align a scan to MNI152 only to look at it: "auto" for raw scans, "always", "never".
        min_overlap: Dice.
        min_coverage: share of MNI152's brain in the field of view.
        max_stretch: largest over smallest scaling.
        min_information: nats; ds000011 and ixi10 have 0.07 and more, a ball of noise 0.01 at most.
        max_against: rank correlation with the template; a T1w scan with less than minus this, or a T2w scan with more,
            is likely of another contrast. 148 registered T1w scans (lgg, ds002748, ds000011) have 0.05 and more, 40 T2w
            phantoms -0.28 and less; 78 FLAIR scans (lgg) anything from -0.30 to 0.42, so nothing is said of it.
        max_turned: nats; ds000011 and ixi10 have -0.2 and less.
        max_empty: share of the brain's voxels.
    """

    align: Literal["auto", "always", "never"] = "auto"
    min_overlap: float = 0.88
    min_coverage: float = 0.85
    max_stretch: float = 1.4
    min_information: float = 0.03
    max_against: float = 0.1
    max_turned: float = -0.05
    max_empty: float = 0.05

    def __post_init__(self) -> None:
        for name in ("min_overlap", "min_coverage", "max_empty"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} is a share: give 0 to 1")
        if self.max_stretch < 1:
            raise ValueError(
                f"max_stretch={self.max_stretch} is a largest over a smallest scaling: give 1 or more"
            )


def check_against_atlas(
    volume: Volume, brain: Bool[np.ndarray, "x y z"], alignment: Alignment, config: QualityConfig
) -> tuple[dict[str, Any], list[str]]:
    """Numbers of a scan aligned to MNI152, and flags for those out of range."""
    atlas = load_atlas()
    coarse = atlas.affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    atlas_brain = atlas.brain[::2, ::2, ::2]
    to_scan = np.linalg.inv(volume.affine) @ np.linalg.inv(alignment.to_atlas) @ coarse
    there = resample(brain, to_scan, atlas_brain.shape, "nearest")
    seen = resample(np.ones_like(brain), to_scan, atlas_brain.shape, "nearest")
    expected = atlas_brain & seen
    overlap = 2 * float((there & expected).sum()) / max(1.0, float(there.sum() + expected.sum()))
    coverage = float(expected.sum()) / float(atlas_brain.sum())
    information, correlation = _agreement(volume, brain, to_scan, there & expected)
    scalings = np.linalg.svd(alignment.to_atlas[:3, :3], compute_uv=False)
    stretch = float(scalings.max() / max(float(scalings.min()), 1e-6))
    record = {
        "atlas_overlap": round(overlap, 4),
        "atlas_coverage": round(coverage, 4),
        "atlas_stretch": round(stretch, 3),
        "atlas_information": round(information, 3),
        "atlas_correlation": round(correlation, 3),
        "atlas_turned": round(float(alignment.turned), 3),
    }
    checks = [
        (overlap < config.min_overlap, f"brain overlaps the atlas's by {overlap:.2f} only"),
        (coverage < config.min_coverage, f"the scan holds {coverage:.0%} of the atlas's brain"),
        (stretch > config.max_stretch, f"stretched {stretch:.2f} times to fit the atlas"),
        (information < config.min_information, "does not look like the atlas's brain"),
        (
            alignment.turned > config.max_turned,
            "fits the atlas as well upside down or back to front, if not better",
        ),
    ]
    return record, [text for wrong, text in checks if wrong]


def check_contrast(record: Mapping[str, Any], modality: str, config: QualityConfig) -> list[str]:
    """A flag where what `check_against_atlas` recorded speaks against the contrast that the scan is said to have."""
    correlation = record.get("atlas_correlation", 0.0)
    against = {"T1w": -correlation, "T2w": correlation}.get(modality, 0.0)
    return (
        [f"does not look like {modality}: check the contrast"]
        if against > config.max_against
        else []
    )


def _agreement(
    volume: Volume, brain: np.ndarray, to_scan: np.ndarray, inside: np.ndarray
) -> tuple[float, float]:
    """Mutual information, in nats, and rank correlation of scan and template over cells of 4 mm in both brains.

    For the first both are cut into LEVELS classes of equal size, so neither contrast nor brightness matter; for the
    second the darkest cells of the template, fluid, are left out, because T1w and FLAIR have them in common.
    """
    cells = to_scan @ np.diag([2.0, 2.0, 2.0, 1.0])
    inside = ndimage.binary_erosion(inside)[::2, ::2, ::2]
    if inside.sum() < 10 * LEVELS**2:
        return 0.0, 0.0
    seen = resample(
        np.where(brain, volume.data, 0).astype(np.float32), cells, inside.shape, "linear"
    )
    template = ndimage.gaussian_filter(load_atlas().t1, 1.5)[::4, ::4, ::4]
    one, other = (
        np.argsort(np.argsort(values[inside], kind="stable")) for values in (seen, template)
    )
    joint = np.histogram2d(one, other, bins=LEVELS)[0] / inside.sum()
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    filled = joint > 0
    tissue = other >= FLUID * len(other)
    correlation = stats.spearmanr(one[tissue], other[tissue]).statistic
    return float((joint[filled] * np.log(joint[filled] / apart[filled])).sum()), float(correlation)


def check_voxels(
    volume: Volume, brain: Bool[np.ndarray, "x y z"], config: QualityConfig
) -> tuple[dict[str, Any], list[str]]:
    """The share of the brain that is empty, and a flag where it is large."""
    empty = float(np.mean(volume.data[brain] == 0)) if brain.any() else 1.0
    flags = ["many empty voxels in the brain"] if empty > config.max_empty else []
    return {"empty_share": round(empty, 4)}, flags
