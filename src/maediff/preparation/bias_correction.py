"""A scan without its bias field: N4 (Tustison et al. 2010, doi 10.1109/TMI.2010.2046908), as SimpleITK has it.

    observed = true * field, field smooth:  log field is fitted by B-splines in the brain on a coarse copy, then drawn
    on the scan's own grid

The field is kept, so that what is redrawn later can be given the scan's own shading back.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as config

from maediff.core.errors import InputError
from maediff.scans.volume import Volume

ENABLED = False  # whether scans are corrected by default


@config(frozen=True, config=ConfigDict(extra="forbid"))
class BiasConfig:
    """N4's settings; its other ones are SimpleITK's defaults.

    Args:
        target_mm: the field is fitted on voxels of about this size (a whole shrink factor along each axis).
        iterations: at each of the levels of finer B-splines.
    """

    enabled: bool = ENABLED
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
    """`volume` divided by its bias field, and the field: 1 on average over the brain, in log.

    Raises:
        InputError: N4 cannot be fitted (a single slice, say).
    """
    import SimpleITK as sitk  # noqa: N813

    config = config or BiasConfig()
    inside = brain & (volume.data > 0)  # N4 works on logarithms
    image, mask = (
        _image(volume.data.clip(min=0), volume),
        _image(inside.astype(np.float32), volume),
    )
    factors = [
        max(1, min(round(config.target_mm / float(step)), size // 4 or 1))
        for step, size in zip(volume.spacing_mm, volume.data.shape, strict=True)
    ]
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetNumberOfThreads(1)
    n4.SetNumberOfWorkUnits(1)
    n4.SetMaximumNumberOfIterations(list(config.iterations))
    small = sitk.Shrink(image, factors)
    try:
        n4.Execute(small, sitk.Cast(sitk.Shrink(mask, factors) > 0.5, sitk.sitkUInt8))
        log_field = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(image)).T
    except RuntimeError as error:  # several lines of ITK; the last one says what is wrong
        why = str(error).strip().splitlines()[-1]
        shape = " x ".join(map(str, volume.data.shape))
        raise InputError(
            f"{volume.source}: N4 bias correction failed on {shape} voxels ({why}); add "
            "bias.enabled=false, or leave the scan out"
        ) from error
    log_field = log_field - log_field[brain].mean()
    field = np.exp(np.clip(log_field, -3, 3)).astype(np.float32)
    return replace(volume, data=np.ascontiguousarray(volume.data / field, dtype=np.float32)), field


def _image(data: np.ndarray, volume: Volume) -> Any:
    import SimpleITK as sitk  # noqa: N813

    image = sitk.GetImageFromArray(np.ascontiguousarray(data.T, dtype=np.float32))
    image.SetSpacing([float(step) for step in volume.spacing_mm])
    return image
