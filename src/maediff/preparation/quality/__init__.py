"""Quality control of a scan: numbers, and a flag for each number out of its range.

flags.py    Flag: code, sentence, advice
atlas.py    the scan beside MNI152: overlap, orientation, contrast
image.py    noise, ghosting and motion; empty slices
mask.py     brain mask: fluid and scalp at its edge, volume beside the head and the T1w
"""

from maediff.preparation.quality.atlas import (
    QualityConfig,
    check_against_atlas,
    check_contrast,
    check_voxels,
)
from maediff.preparation.quality.flags import ADVICE, Flag, describe_flags, record_flags
from maediff.preparation.quality.image import check_slices

__all__ = [
    "ADVICE",
    "Flag",
    "QualityConfig",
    "check_against_atlas",
    "check_contrast",
    "check_slices",
    "check_voxels",
    "describe_flags",
    "record_flags",
]
