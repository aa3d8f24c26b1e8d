"""Correction of the bias field by N4 (Tustison et al. 2010, doi 10.1109/TMI.2010.2046908).

    observed = true * field, with a smooth field

SimpleITK's N4 fits log(field) by B-splines in the brain, on a coarse copy of the scan.
The field is then evaluated on the scan's own grid and kept, so that `detect` can give the healthy
reference the shading of the scan.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as config

from maediff.core.errors import InputError
from maediff.scans.volume import Volume


@config(frozen=True, config=ConfigDict(extra="forbid"))
class BiasConfig:
    """Settings of N4; all others are SimpleITK's defaults.

    Args:
        enabled: true corrects scans.
        target_mm: approximate voxel size that the field is fitted on, by a whole shrink factor
            along each axis.
        iterations: iterations at each level; each level has finer B-splines than the last.
    """

    enabled: bool = False
    target_mm: float = 4.0
    iterations: tuple[int, ...] = (50, 50, 50)

    def __post_init__(self) -> None:
        if self.target_mm <= 0 or not self.iterations or min(self.iterations) < 1:
            raise ValueError(
                f"bias.target_mm {self.target_mm}, bias.iterations {self.iterations}: both above 0"
            )


def correct_bias(
    volume: Volume, brain: Bool[np.ndarray, "x y z"], config: BiasConfig | None = None
) -> tuple[Volume, Float32[np.ndarray, "x y z"]]:
    """Divide a scan by its bias field.

    Args:
        volume: the scan.
        brain: its brain mask.
        config: settings of N4; None uses the defaults.

    Returns:
        The corrected scan, and the field; the mean of log(field) over the brain is 0.

    Raises:
        InputError: N4 cannot fit the field, for example to a single slice.
    """
    import SimpleITK as sitk  # noqa: N813

    config = config or BiasConfig()
    inside = brain & (volume.data > 0)  # N4 works on logarithms
    image = _make_image(volume.data.clip(min=0), volume)
    mask = _make_image(inside.astype(np.float32), volume)
    factors = [
        max(1, min(round(config.target_mm / float(step)), size // 4 or 1))
        for step, size in zip(volume.spacing_mm, volume.data.shape, strict=True)
    ]
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    # With one thread and one work unit, the same scan always gives the same field.
    n4.SetNumberOfThreads(1)
    n4.SetNumberOfWorkUnits(1)
    n4.SetMaximumNumberOfIterations(list(config.iterations))
    coarse = sitk.Shrink(image, factors)
    try:
        n4.Execute(coarse, sitk.Cast(sitk.Shrink(mask, factors) > 0.5, sitk.sitkUInt8))
        log_field = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(image)).T
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]  # ITK gives the reason in the last line
        shape = " x ".join(map(str, volume.data.shape))
        raise InputError(
            f"{volume.source}: N4 bias correction failed on {shape} voxels ({reason}); use "
            "`bias.enabled=false`, or leave the scan out"
        ) from error
    log_field = log_field - log_field[brain].mean()
    field = np.exp(np.clip(log_field, -3, 3)).astype(np.float32)
    corrected = np.ascontiguousarray(volume.data / field, dtype=np.float32)
    return replace(volume, data=corrected), field


def _make_image(data: np.ndarray, volume: Volume) -> Any:
    """Return a SimpleITK image with the voxel sizes of `volume`."""
    import SimpleITK as sitk  # noqa: N813

    image = sitk.GetImageFromArray(np.ascontiguousarray(data.T, dtype=np.float32))
    image.SetSpacing([float(step) for step in volume.spacing_mm])
    return image
