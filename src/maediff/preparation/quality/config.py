"""Limits of quality control, from healthy scans and from scans that were damaged on purpose.

experiments/quality has the numbers of both, for every limit that is not explained here.
"""

from typing import Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as config


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
        max_noise: largest `noise`. 60 scans of ds002748, 14 of ds000011, 8 of wmh and 4 of ixi10,
            all T1w, have 0.038 at most; 20 % noise on the scan gives 0.08.
        max_air: largest `air_signal` of a T1w with skull. ds000011, wmh and ixi10 have 0.048 at
            most; 10 % noise gives 0.21, ghosts of 70 % give 0.06 to 0.07.
        max_air_t2w_flair: the same of a T2w or FLAIR. 14 T2w of ds000011 and 8 FLAIR of wmh have
            0.028 at most; strong motion gives 0.044 to 0.12 in T2w.
        max_vertex_ml: largest `vertex_ml` of a T2w. The T2w of ds000011 have 1.7
            to 10.9 ml; two masks with 40 ml of skull and scalp have 25 and 30 ml.
        max_vertex_t1w_ml: largest `vertex_ml` of a T1w. 92 scans have 4 to 34 ml, mostly fluid.
        max_vertex_flair_ml: largest `vertex_ml` of a FLAIR. wmh has 9 ml at most, lgg 24.
        max_bright_ml: largest `bright_ml`. 92 healthy T1w and 8 FLAIR have 0.8 ml at most,
            20 scans of lgg 5.1.
        min_head_share: smallest `head_share`. 54 scans of ds000011, ixi10 and wmh have 0.50 to
            0.68.
        max_head_share: largest `head_share`.
        max_scalp_ml: largest `scalp_ml`. 40 scans of ds000011, ixi10 and wmh have 0; masks with
            20 ml of scalp and skull in one place have 6 to 10 ml.
        max_bright_share: largest `bright_share`. 92 healthy T1w have 0.001 at most, 10 of lgg
            0.0006, and the T1w with contrast agent of mslub 0.0042.
    """

    align: Literal["auto", "always", "never"] = "auto"
    min_overlap: float = 0.88
    min_coverage: float = 0.85
    max_stretch: float = 1.4
    min_information: float = 0.03
    max_against: float = 0.1
    max_turned: float = -0.05
    max_empty: float = 0.05
    max_noise: float = 0.05
    max_air: float = 0.06
    max_air_t2w_flair: float = 0.04
    max_vertex_ml: float = 14.0
    max_vertex_t1w_ml: float = 45.0
    max_vertex_flair_ml: float = 32.0
    max_bright_ml: float = 6.0
    min_head_share: float = 0.42
    max_head_share: float = 0.76
    max_scalp_ml: float = 4.0
    max_bright_share: float = 0.002

    def __post_init__(self) -> None:
        shares = ("min_overlap", "min_coverage", "max_empty", "min_head_share", "max_head_share")
        for name in (*shares, "max_bright_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} is a share: give 0 to 1")
        if self.max_stretch < 1:
            raise ValueError(
                f"max_stretch={self.max_stretch} is a largest over a smallest scaling: give 1 or "
                "more"
            )
