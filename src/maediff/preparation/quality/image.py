"""Quality of the image itself: lost slices.

lost slices    slices of one value between slices of the head (`background.fill_empty_slices`)
"""

from typing import Any

import numpy as np
from jaxtyping import Bool

from maediff.preparation.background import find_gaps
from maediff.preparation.quality.flags import Flag


def check_slices(
    brain: Bool[np.ndarray, "x y z"], n_filled: int
) -> tuple[dict[str, Any], list[Flag]]:
    """Return the number of empty slices within the brain, and a flag if there is one.

    Args:
        brain: brain mask.
        n_filled: empty slices that were interpolated before the brain was found.
    """
    n_left = 0
    for axis in range(3):
        others = tuple(k for k in range(3) if k != axis)
        n_left += sum(stop - start for start, stop in find_gaps(brain.any(axis=others)))
    record = {"empty_slices": n_filled + n_left}
    flags = []
    if n_filled:
        flags.append(
            Flag("empty-slices", f"{n_filled} empty slice(s) in the head, interpolated here")
        )
    if n_left:
        flags.append(Flag("empty-slices", f"{n_left} empty slice(s) within the brain"))
    return record, flags
