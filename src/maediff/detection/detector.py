"""A scan and a trained method in; anomaly map, healthy reference and brain mask out, on the scan's own grid.

    scan -> steps -> model's grid -> slices -> method -> residual   -> post-processing         = anomaly map
                                                         reference  -> scan's own intensities  = healthy reference

What `maediff detect` does with each of its scans, before it sets a threshold and writes files.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from maediff.anomaly.postprocess import PostprocessConfig, check_symmetry, residual_map
from maediff.core.config import build_config
from maediff.core.types import Map, Mask
from maediff.detection.to_scan import from_grid
from maediff.methods import Method, predict_volume
from maediff.preparation.config import StepsConfig, steps_of
from maediff.preparation.grid import GridConfig
from maediff.preparation.intensities import NormaliseConfig, standardise
from maediff.preparation.onto_grid import Prepared, prepare_scan
from maediff.preparation.steps import ZERO_BACKGROUND, Stepped, run_steps
from maediff.scans.volume import Volume, slices_to_volume, volume_to_slices


@dataclass(frozen=True, eq=False)
class Anomalies:
    """What a method finds in a scan.

    Args:
        anomaly_map: in [0, 1], 0 outside the brain; like the next two on the scan's own grid, in RAS+.
        healthy_reference: in the scan's own intensities.
        images, brain, anomaly, reference: slices of the model's grid, intensities as the method sees them.
        stepped, prepared: what the scan went through on its way there.
    """

    anomaly_map: Float[np.ndarray, "x y z"]
    healthy_reference: Float[np.ndarray, "x y z"]
    brain_mask: Bool[np.ndarray, "x y z"]
    images: Map
    brain: Mask
    anomaly: Map
    reference: Map
    stepped: Stepped
    prepared: Prepared

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size of the model's grid along X, Y and Z."""
        x, y, z = (float(size) for size in self.prepared.grid.spacing_mm)
        return x, y, z


def find_anomalies(
    volume: Volume,
    method: Method,
    cohort: Mapping[str, Any],
    post: PostprocessConfig,
    *,
    brain: Bool[np.ndarray, "x y z"] | None = None,
    steps: StepsConfig | None = None,
    t1: Path | None = None,
    t1_series: str | None = None,
    seed: int = 0,
    batch_size: int = 16,
    device: str = "cpu",
) -> Anomalies:
    """The anomaly map of a scan and what it is made from.

    Args:
        method, cohort: of `checkpoint.load_model`, whose config has what the cohort's scans went through in "cohort".
        post: the model's own is `operating_point.own_postprocess`.
        brain: the mask that came with the scan.
        steps: None: those of the cohort (`steps.steps_of`).
        t1, t1_series: see `steps.run_steps`.
        device: where `method` is.

    Raises:
        InputError: a scan that cannot be used (`steps.run_steps`, `prepare_scan`); `post` has a symmetry and the
            method's scans are not registered.
    """
    steps = steps or steps_of(cohort)
    check_symmetry(post, bool(steps.registration.enabled), str(volume.source))
    normalise = build_config(NormaliseConfig, cohort["normalise"], "normalise")
    stepped = run_steps(
        volume, brain, steps, modality=cohort["modality"], t1=t1, t1_series=t1_series
    )
    prepared = prepare_scan(
        stepped.volume,
        stepped.brain,
        None,
        build_config(GridConfig, cohort["grid"], "grid"),
        normalise,
        brain_from=stepped.brain_from,
        to_atlas=stepped.to_atlas,
    )
    stepped.add_to(prepared)
    grid, images, inside = (
        prepared.grid,
        volume_to_slices(prepared.image),
        volume_to_slices(prepared.brain),
    )
    ids = np.arange(len(images))
    residual, reference = predict_volume(
        method, images, inside, ids, seed=seed, batch_size=batch_size, device=device
    )
    anomaly = residual_map(residual, inside, grid.spacing_mm.tolist(), post, images)
    low, high = prepared.record["intensity_range"]
    linear = standardise(reference, prepared.record.get("deciles", []), normalise, back=True)
    redrawn = from_grid(
        slices_to_volume((low + (high - low) * linear) * inside), grid, volume, "linear"
    )
    if stepped.bias_field is not None:  # redrawn with the scan's own shading
        redrawn = redrawn * stepped.bias_field
    mask = stepped.brain
    if stepped.brain_from == ZERO_BACKGROUND and stepped.to_atlas is None:
        mask = from_grid(prepared.brain, grid, volume, "nearest")
    on_scan = np.where(
        mask, from_grid(slices_to_volume(anomaly), grid, volume, "linear"), 0
    ).astype(np.float32)
    return Anomalies(on_scan, redrawn, mask, images, inside, anomaly, reference, stepped, prepared)
