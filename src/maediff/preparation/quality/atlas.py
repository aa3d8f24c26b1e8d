"""A scan beside MNI152: numbers, and a flag for each number out of range.

    brain_ml             volume of the brain (`prepare_scan` flags it)
    atlas_overlap        Dice of the brain, aligned to MNI152, and the brain of MNI152, within the
                         scan's field of view
    atlas_coverage       share of the brain of MNI152 in the scan's field of view
    atlas_stretch        largest / smallest scaling of the alignment; half a brain needs stretching
    atlas_information    mutual information with the template in both brains, at 4 mm; 0 for noise
    atlas_correlation    rank correlation with the template (T1w) where the template is brighter
                         than fluid; negative for T2w
    tissue_levels        medians in white matter, grey matter and deep fluid of the template; 0 and
                         1 are the 1st and 99th percentile of the brain
    atlas_turned         `Alignment.turned`: clearly below 0 for a head
    empty_share          share of voxels in the brain that are exactly 0

The alignment is that of registration, or a quick one for quality control alone.
A flag does not stop a scan. It is written to qc.csv, the summary and the report, with `qc.png`
(`picture.write_picture`).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from maediff.core.types import Modality
from maediff.preparation.atlas.reduced import load_reduced_atlas
from maediff.preparation.quality.config import QualityConfig
from maediff.preparation.quality.flags import Flag
from maediff.preparation.registration import Alignment
from maediff.preparation.resample import find_covered, resample
from maediff.scans.volume import Volume

INTENSITY_CLASSES = 8
FLUID_SHARE = 0.35  # the darkest cells of the template
MIN_TISSUE_CELLS = 20
CLEAR_DIFFERENCE = 0.12
"""Difference of tissue levels that decides the contrast, as a share of the brain's range."""
T1W_DIFFERENCE = 0.11
"""Smallest white minus grey matter in a T1w.

92 T1w scans of healthy people have 0.15 and more; the FLAIR scans of wmh, of 80-year-olds, have
0.10 at most.
"""


def check_against_atlas(
    volume: Volume, brain: Bool[np.ndarray, "x y z"], alignment: Alignment, config: QualityConfig
) -> tuple[dict[str, Any], list[Flag]]:
    """Return the `atlas_*` numbers of an aligned scan, and flags for numbers out of range.

    Args:
        volume: the scan.
        brain: its brain mask.
        alignment: position of the scan in MNI152.
        config: limits.
    """
    atlas = load_reduced_atlas()
    atlas_brain = atlas.brain_2mm
    from_atlas = np.linalg.inv(alignment.to_atlas)
    to_scan = np.linalg.inv(volume.affine) @ from_atlas @ atlas.affine_2mm
    scan_brain = resample(brain, to_scan, atlas_brain.shape, "nearest")
    in_view = find_covered(to_scan, atlas_brain.shape, brain.shape)
    expected = atlas_brain & in_view
    both = scan_brain & expected
    overlap = 2 * float(both.sum()) / max(1.0, float(scan_brain.sum() + expected.sum()))
    coverage = float(expected.sum()) / float(atlas_brain.sum())
    information, correlation, levels = _compare_with_template(volume, brain, to_scan, both)
    scalings = np.linalg.svd(alignment.to_atlas[:3, :3], compute_uv=False)
    stretch = float(scalings.max() / max(float(scalings.min()), 1e-6))
    record = {
        "atlas_overlap": round(overlap, 4),
        "atlas_coverage": round(coverage, 4),
        "atlas_stretch": round(stretch, 3),
        "atlas_information": round(information, 3),
        "atlas_correlation": round(correlation, 3),
        "atlas_turned": round(float(alignment.turned), 3),
        "tissue_levels": {name: round(level, 3) for name, level in levels.items()},
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
    """Return a flag if the image contradicts the scan's contrast.

    Two findings contradict it: the correlation with the template, and the brightness of the
    tissues (`estimate_contrast`).

    Args:
        record: from `check_against_atlas`; without its numbers, nothing is flagged.
        modality: contrast that the caller or the file name states.
        config: limits.
    """
    correlation = record.get("atlas_correlation", 0.0)
    against = {"T1w": -correlation, "T2w": correlation}.get(modality, 0.0)
    if against > config.max_against:
        return [Flag("wrong-contrast", f"does not look like {modality}")]
    looks = estimate_contrast(record)
    if looks not in (None, modality):
        return [Flag("wrong-contrast", f"looks like {looks}, not like {modality}")]
    levels = record.get("tissue_levels") or {}
    if modality == "T1w" and {"white", "grey"} <= levels.keys():
        difference = levels["white"] - levels["grey"]
        if difference < T1W_DIFFERENCE:
            finding = (
                f"white matter is only {max(difference, 0):.2f} of the range brighter than grey"
            )
            return [Flag("wrong-contrast", f"does not look like T1w: {finding} matter")]
    if modality == "T2w" and levels.get("fluid", 1.0) < levels.get("grey", 0.0):
        finding = "the ventricles are darker than grey matter"
        return [Flag("wrong-contrast", f"does not look like T2w: {finding}")]
    return []


def estimate_contrast(record: Mapping[str, Any]) -> Modality | None:
    """Return the contrast that the brightness of the tissues shows, T1w or T2w.

        T2w    fluid > white matter, grey matter
        T1w    white matter > grey matter > fluid

    Grey matter is brighter than white matter in young brains in FLAIR, but not in old ones, so
    FLAIR is not decided. A T1w with contrast agent looks like a T1w: an agent brightens vessels
    and lesions, not tissues.

    Args:
        record: from `check_against_atlas`.

    Returns:
        None if the tissues do not decide, or were not measured.
    """
    levels = record.get("tissue_levels") or {}
    if not {"white", "grey", "fluid"} <= levels.keys():
        return None
    white, grey, fluid = levels["white"], levels["grey"], levels["fluid"]
    if fluid > max(white, grey) + CLEAR_DIFFERENCE:
        return "T2w"
    if white - grey > CLEAR_DIFFERENCE and fluid < grey:
        return "T1w"
    return None


def _compare_with_template(
    volume: Volume, brain: np.ndarray, to_scan: np.ndarray, inside: np.ndarray
) -> tuple[float, float, dict[str, float]]:
    """Compare a scan with the template, in cells of 4 mm.

    The mutual information is computed on `INTENSITY_CLASSES` classes of equal size, so contrast
    and brightness do not matter.
    The rank correlation ignores the darkest cells of the template, fluid, which is dark in T1w
    and in FLAIR.

    Args:
        volume: the scan.
        brain: its brain mask.
        to_scan: voxel of the template, at 2 mm -> voxel of the scan.
        inside: the brain of both, at 2 mm.

    Returns:
        Mutual information (nats), rank correlation, and tissue levels; no levels of tissues of
        which too few cells are in the scan.
    """
    cells = to_scan @ np.diag([2.0, 2.0, 2.0, 1.0])
    inside = ndimage.binary_erosion(inside)[::2, ::2, ::2]
    if inside.sum() < 10 * INTENSITY_CLASSES**2:
        return 0.0, 0.0, {}
    masked = np.where(brain, volume.data, 0).astype(np.float32)
    scan = resample(masked, cells, inside.shape, "linear")
    template = load_reduced_atlas().t1_4mm
    scan_ranks, template_ranks = (
        np.argsort(np.argsort(values[inside], kind="stable")) for values in (scan, template)
    )
    joint = np.histogram2d(scan_ranks, template_ranks, bins=INTENSITY_CLASSES)[0] / inside.sum()
    independent = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    filled = joint > 0
    information = (joint[filled] * np.log(joint[filled] / independent[filled])).sum()
    tissue = template_ranks >= FLUID_SHARE * len(template_ranks)
    correlation = _correlate_ranks(scan_ranks[tissue], template_ranks[tissue])
    low, high = np.percentile(volume.data[brain], [1, 99])
    levels = {}
    for name, cells_of_tissue in _find_tissues(template).items():
        values = scan[cells_of_tissue & inside]
        if len(values) >= MIN_TISSUE_CELLS:
            level = (float(np.median(values)) - low) / max(float(high - low), 1e-6)
            levels[name] = float(level)
    return float(information), correlation, levels


def _correlate_ranks(first: np.ndarray, second: np.ndarray) -> float:
    """Return Spearman's rank correlation of two arrays without equal values.

    scipy.stats gives the same value, but its import takes half a second.
    """
    first_ranks, second_ranks = (np.argsort(np.argsort(values)) for values in (first, second))
    return float(np.corrcoef(first_ranks, second_ranks)[0, 1])


def _find_tissues(template: np.ndarray) -> dict[str, np.ndarray]:
    """Return the cells of 4 mm that hold one tissue alone, by the template's intensity.

    Over nine in ten cells of nilearn's white matter map above 0.9, and of its grey matter map
    above 0.75, are in the first two ranges. Fluid counts 12 mm or more inside the brain only, so
    that the rim of a mask does not matter: these are the ventricles.
    """
    deep = load_reduced_atlas().deep_4mm
    return {
        "white": template > 0.83,
        "grey": (template > 0.58) & (template < 0.69),
        "fluid": deep & (template < 0.4),
    }


def check_voxels(
    volume: Volume, brain: Bool[np.ndarray, "x y z"], config: QualityConfig
) -> tuple[dict[str, Any], list[Flag]]:
    """Return the share of brain voxels that are 0, and a flag if it is large.

    Args:
        volume: the scan.
        brain: its brain mask.
        config: limits.
    """
    empty = float(np.mean(volume.data[brain] == 0)) if brain.any() else 1.0
    flags = []
    if empty > config.max_empty:
        flags.append(Flag("empty-voxels", "many empty voxels in the brain"))
    return {"empty_share": round(empty, 4)}, flags
