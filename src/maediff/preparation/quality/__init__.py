"""Quality control of a scan: numbers, and a flag for each number out of its range.

flags.py    Flag: code, sentence, advice
atlas.py    the scan beside MNI152: overlap, orientation, contrast
image.py    noise, ghosting and motion; contrast agent; empty slices
mask.py     brain mask: fluid and scalp at its edge, share of the head
"""

from maediff.preparation.quality.atlas import (
    check_against_atlas,
    check_contrast,
    check_voxels,
    estimate_contrast,
)
from maediff.preparation.quality.config import QualityConfig
from maediff.preparation.quality.flags import (
    ADVICE,
    Flag,
    add_flags,
    describe_flags,
    record_flags,
)
from maediff.preparation.quality.image import check_air, check_image, check_slices
from maediff.preparation.quality.mask import (
    check_head,
    check_outline,
    check_pieces,
    shows_skull,
)

__all__ = [
    "ADVICE",
    "Flag",
    "QualityConfig",
    "add_flags",
    "check_against_atlas",
    "check_air",
    "check_contrast",
    "check_head",
    "check_image",
    "check_outline",
    "check_pieces",
    "check_slices",
    "check_voxels",
    "describe_flags",
    "estimate_contrast",
    "record_flags",
    "shows_skull",
]
