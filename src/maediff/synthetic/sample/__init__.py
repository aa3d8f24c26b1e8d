"""Sample scan that comes with maediff: one synthetic brain with a lesion, in T1w and FLAIR.

`make_sample_brain` makes this brain, and a healthy one for comparison. tools/make_sample.py stores
the scans.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from maediff.core.errors import InputError
from maediff.core.types import Modality

if TYPE_CHECKING:
    from maediff.synthetic.brain import Phantom

CONTRASTS = ("FLAIR", "T1w")
LESION_SEED = (20251129, 13)
"""Chosen so that T1w and FLAIR have their lesion in the same place."""
HEALTHY_SEED = (20251129, 20)
"""Chosen so that `flair` detects nothing at its threshold: score 0.038, threshold 0.046."""


def make_sample_brain(modality: Modality, *, healthy: bool = False) -> "Phantom":
    """Return the brain of the sample, with its large lesion, or the healthy brain beside it.

    Args:
        modality: contrast. The lesion is dark in T1w, and bright in other contrasts.
        healthy: return the healthy brain.
    """
    from maediff.synthetic.brain import PhantomConfig, healthy_brain
    from maediff.synthetic.lesion import add_lesion

    brain = healthy_brain(
        HEALTHY_SEED if healthy else LESION_SEED, PhantomConfig(contrast=modality)
    )
    if healthy:
        return brain
    return add_lesion(brain, "dark" if modality == "T1w" else "bright", "large", LESION_SEED)


def find_sample(modality: str | None = None) -> Path:
    """Return the path of the sample scan.

    Args:
        modality: T1w or FLAIR; None for FLAIR.

    Raises:
        InputError: there is no sample of this contrast.
    """
    contrast = modality or CONTRASTS[0]
    if contrast not in CONTRASTS:
        raise InputError(
            f"`modality={modality}`: the sample is {' or '.join(CONTRASTS)}; choose one of them"
        )
    return Path(__file__).parent / f"sub-sample_{contrast}.nii.gz"
