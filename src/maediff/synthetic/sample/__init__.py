"""Sample scan that comes with maediff: one synthetic brain with a lesion, in T1w and FLAIR."""

from pathlib import Path

from maediff.core.errors import InputError

CONTRASTS = ("FLAIR", "T1w")


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
