"""Reconstruction of healthy scans as a whole: a model's own, and a new scan beside them.

    calibration.json  reconstruction  errors       `reconstruction_error` of each healthy scan
                                      blur_errors  `blur_error` of the same scans

`calibrate` and `train` write the entry. A calibration without it allows no check.
`tools/measure_reconstruction.py` adds it to a model that was calibrated earlier.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from maediff.preparation.quality.flags import Flag

MAX_SHARE = 0.8
"""Largest error of a trained network, as a share of that of a blur.

In healthy scans, `t1` has 0.14, `t2` 0.38 and `flair` 0.54. Networks that were trained for 20
steps have 1.2 to 1.5 (experiments/quality).
"""
MAX_TIMES = 2.5
"""Largest error of a usable scan, in units of the largest of the healthy scans.

Good scans of other scanners and of patients have up to 2.4 (experiments/quality).
"""


@dataclass(frozen=True)
class HealthyReconstructions:
    """Errors of a model in the healthy scans of its calibration.

    Args:
        errors: `anomaly.reconstruction.reconstruction_error` of each scan.
        blur_errors: `anomaly.reconstruction.blur_error` of each scan.
    """

    errors: tuple[float, ...]
    blur_errors: tuple[float, ...]

    @property
    def share(self) -> float:
        """Median error as a share of the median error of a blur."""
        return float(np.median(self.errors) / max(float(np.median(self.blur_errors)), 1e-6))

    def check_model(self) -> list[Flag]:
        """Return a flag if the network reconstructs healthy scans hardly better than a blur."""
        if self.share <= MAX_SHARE:
            return []
        return [
            Flag(
                "model-untrained",
                f"the model reconstructs healthy scans with {self.share:.2f} times the error of "
                f"a blur ({MAX_SHARE:g} at most)",
            )
        ]

    def check_scan(self, error: float) -> list[Flag]:
        """Return a flag if a scan is reconstructed much worse than the healthy scans.

        Args:
            error: `anomaly.reconstruction.reconstruction_error` of the scan.
        """
        largest = max(self.errors)
        if not error > MAX_TIMES * largest:
            return []
        return [
            Flag(
                "residual",
                f"the residual as a whole is {error / largest:.1f} times the largest of "
                f"{len(self.errors)} healthy scans",
            )
        ]

    def record(self) -> dict[str, list[float]]:
        """Return the entry of calibration.json."""
        return {
            "errors": [round(value, 5) for value in self.errors],
            "blur_errors": [round(value, 5) for value in self.blur_errors],
        }


def read_reconstructions(stored: Mapping[str, Any]) -> HealthyReconstructions | None:
    """Return the errors that a calibration stores; None if it stores none.

    Args:
        stored: content of calibration.json.

    Raises:
        ValueError: the entry is damaged.
    """
    entry = stored.get("reconstruction")
    if entry is None:
        return None
    lists: list[Sequence[Any]] = []
    for key in ("errors", "blur_errors"):
        values = entry.get(key) if isinstance(entry, Mapping) else None
        if not isinstance(values, list) or not values:
            raise ValueError(f"its reconstruction has no list of {key}")
        if not all(type(value) in (int, float) and 0 <= value <= 1 for value in values):
            raise ValueError(f"its reconstruction.{key} are no numbers from 0 to 1")
        lists.append(values)
    return HealthyReconstructions(tuple(lists[0]), tuple(lists[1]))
