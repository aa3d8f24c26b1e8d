"""Quality control of a scan and its brain mask: numbers, and a flag for each number out of range.

    brain_ml             volume of the brain (`prepare_scan` flags it)
    atlas_overlap        Dice of the brain, aligned to MNI152, and the brain of MNI152, within the
                         scan's field of view
    atlas_coverage       share of the brain of MNI152 in the scan's field of view
    atlas_stretch        largest / smallest scaling of the alignment; half a brain needs stretching
    atlas_information    mutual information with the template in both brains, at 4 mm; 0 for noise
    atlas_correlation    rank correlation with the template (T1w) where the template is brighter
                         than fluid; negative for T2w
    atlas_turned         `Alignment.turned`: clearly below 0 for a head
    empty_share          share of voxels in the brain that are exactly 0

The alignment is that of registration, or a quick one for quality control alone.
A flag does not stop a scan. It is written to qc.csv, the summary and the report, with `qc.png`
(`picture.write_picture`).
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as config
from scipy import ndimage, stats

from maediff.preparation.quality.flags import Flag
from maediff.preparation.registration import Alignment, load_atlas
from maediff.preparation.resample import resample
from maediff.scans.volume import Volume

INTENSITY_CLASSES = 8
FLUID_SHARE = 0.35  # the darkest cells of the template


@config(frozen=True, config=ConfigDict(extra="forbid"))
class QualityConfig:
    """Limits of quality control.

    Args:
        align: alignment to MNI152 for quality control alone: "auto" aligns raw scans.
        min_overlap: smallest `atlas_overlap`.
        min_coverage: smallest `atlas_coverage`.
        max_stretch: largest `atlas_stretch`.
        min_information: smallest `atlas_information`, in nats. ds000011 and ixi10 have 0.07 and
            more; a ball of noise has 0.01 at most.
        max_against: a T1w scan with an `atlas_correlation` below minus this value, or a T2w scan
            above it, probably has another contrast. 148 registered T1w scans (lgg, ds002748,
            ds000011) have 0.05 and more; 40 T2w phantoms have -0.28 and less. 78 FLAIR scans
            (lgg) have -0.30 to 0.42, so FLAIR is not checked.
        max_turned: largest `atlas_turned`, in nats; ds000011 and ixi10 have -0.2 and less.
        max_empty: largest `empty_share`.
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
                f"max_stretch={self.max_stretch} is a largest over a smallest scaling: give 1 or "
                "more"
            )


def check_against_atlas(
    volume: Volume, brain: Bool[np.ndarray, "x y z"], alignment: Alignment, config: QualityConfig
) -> tuple[dict[str, Any], list[Flag]]:
    """Return the `atlas_*` numbers of an aligned scan, and flags for numbers out of range."""
    atlas = load_atlas()
    coarse = atlas.affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    atlas_brain = atlas.brain[::2, ::2, ::2]
    to_scan = np.linalg.inv(volume.affine) @ np.linalg.inv(alignment.to_atlas) @ coarse
    scan_brain = resample(brain, to_scan, atlas_brain.shape, "nearest")
    in_view = resample(np.ones_like(brain), to_scan, atlas_brain.shape, "nearest")
    expected = atlas_brain & in_view
    both = scan_brain & expected
    overlap = 2 * float(both.sum()) / max(1.0, float(scan_brain.sum() + expected.sum()))
    coverage = float(expected.sum()) / float(atlas_brain.sum())
    information, correlation = _compare_with_template(volume, brain, to_scan, both)
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
        (
            overlap < config.min_overlap,
            Flag("aligned-badly", f"brain overlaps the atlas's by {overlap:.2f} only"),
        ),
        (
            coverage < config.min_coverage,
            Flag("cut-off", f"the scan holds {coverage:.0%} of the atlas's brain"),
        ),
        (
            stretch > config.max_stretch,
            Flag("aligned-badly", f"stretched {stretch:.2f} times to fit the atlas"),
        ),
        (
            information < config.min_information,
            Flag("not-a-brain", "does not look like the atlas's brain"),
        ),
        (
            alignment.turned > config.max_turned,
            Flag("turned", "fits the atlas as well upside down or back to front, if not better"),
        ),
    ]
    return record, [flag for wrong, flag in checks if wrong]


def check_contrast(record: Mapping[str, Any], modality: str, config: QualityConfig) -> list[Flag]:
    """Return a flag if the correlation with the template contradicts the scan's contrast.

    Args:
        record: from `check_against_atlas`; without a correlation, nothing is flagged.
        modality: contrast that the caller or the file name states.
        config: limits.
    """
    correlation = record.get("atlas_correlation", 0.0)
    against = {"T1w": -correlation, "T2w": correlation}.get(modality, 0.0)
    if against > config.max_against:
        return [Flag("wrong-contrast", f"does not look like {modality}: check the contrast")]
    return []


def _compare_with_template(
    volume: Volume, brain: np.ndarray, to_scan: np.ndarray, inside: np.ndarray
) -> tuple[float, float]:
    """Return mutual information (nats) and rank correlation with the template, in cells of 4 mm.

    The mutual information is computed on `INTENSITY_CLASSES` classes of equal size, so contrast
    and brightness do not matter.
    The rank correlation ignores the darkest cells of the template, fluid, which is dark in T1w
    and in FLAIR.

    Args:
        volume: the scan.
        brain: its brain mask.
        to_scan: voxel of the template, at 2 mm -> voxel of the scan.
        inside: the brain of both, at 2 mm.
    """
    cells = to_scan @ np.diag([2.0, 2.0, 2.0, 1.0])
    inside = ndimage.binary_erosion(inside)[::2, ::2, ::2]
    if inside.sum() < 10 * INTENSITY_CLASSES**2:
        return 0.0, 0.0
    masked = np.where(brain, volume.data, 0).astype(np.float32)
    scan = resample(masked, cells, inside.shape, "linear")
    template = ndimage.gaussian_filter(load_atlas().t1, 1.5)[::4, ::4, ::4]
    scan_ranks, template_ranks = (
        np.argsort(np.argsort(values[inside], kind="stable")) for values in (scan, template)
    )
    joint = np.histogram2d(scan_ranks, template_ranks, bins=INTENSITY_CLASSES)[0] / inside.sum()
    independent = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    filled = joint > 0
    information = (joint[filled] * np.log(joint[filled] / independent[filled])).sum()
    tissue = template_ranks >= FLUID_SHARE * len(template_ranks)
    correlation = stats.spearmanr(scan_ranks[tissue], template_ranks[tissue]).statistic
    return float(information), float(correlation)


def check_voxels(
    volume: Volume, brain: Bool[np.ndarray, "x y z"], config: QualityConfig
) -> tuple[dict[str, Any], list[Flag]]:
    """Return the share of brain voxels that are 0, and a flag if it is large."""
    empty = float(np.mean(volume.data[brain] == 0)) if brain.any() else 1.0
    flags = []
    if empty > config.max_empty:
        flags.append(Flag("empty-voxels", "many empty voxels in the brain"))
    return {"empty_share": round(empty, 4)}, flags
