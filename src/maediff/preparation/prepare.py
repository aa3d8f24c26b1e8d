"""Preparation of one scan for a model.

    volume -> run_steps (brain, N4, MNI152, quality) -> prepare_scan (grid, intensities)

`maediff preprocess` and `maediff detect` both call `prepare`, so new scans are prepared exactly
like the scans that a model was trained on.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from maediff.core.stages import stage
from maediff.preparation.config import PreparationConfig
from maediff.preparation.onto_grid import Prepared, prepare_scan
from maediff.preparation.quality import (
    check_air,
    check_head,
    check_image,
    check_outline,
    record_flags,
    shows_skull,
)
from maediff.preparation.quality.flags import Flag
from maediff.preparation.steps import Stepped, Tools, run_steps
from maediff.scans.volume import Volume, slice_spacing_mm


@dataclass(frozen=True, eq=False)
class PreparedScan:
    """A prepared scan on both grids.

    Args:
        on_scan: the scan after the steps, on its own grid.
        on_grid: the scan on the model's grid; its record holds the findings of both parts.
    """

    on_scan: Stepped
    on_grid: Prepared


def prepare(
    volume: Volume,
    config: PreparationConfig,
    *,
    brain: Bool[np.ndarray, "x y z"] | None = None,
    lesion: Bool[np.ndarray, "x y z"] | None = None,
    lesion_free_margin: int = 1,
    t1: Path | None = None,
    t1_series: str | None = None,
    tools: Tools | None = None,
) -> PreparedScan:
    """Prepare one scan for a model.

    Args:
        volume: the scan.
        config: the preparation, with its modality.
        brain: brain mask on the scan's grid; None extracts the brain.
        lesion: lesion mask on the scan's grid.
        lesion_free_margin: slices of the scan beside a lesion that do not count as lesion-free.
        t1: T1w of the same session, whose brain mask a raw T2w or FLAIR uses.
        t1_series: SeriesInstanceUID of `t1`, if it is DICOM.
        tools: replacements for brain extraction, N4 and registration; None uses the defaults.

    Raises:
        InputError: the scan cannot be used (see `run_steps` and `prepare_scan`).
        ValueError: `config` has no modality.
    """
    if config.modality is None:
        raise ValueError("config.modality is None: give T1w, T2w or FLAIR (config.for_modality)")
    config = config.for_modality(config.modality)
    on_scan = run_steps(volume, brain, config, t1=t1, t1_series=t1_series, tools=tools)
    with stage("model's grid"):
        on_grid = prepare_scan(
            on_scan.volume,
            on_scan.brain,
            lesion,
            config.grid,
            config.normalise,
            lesion_free_margin,
            brain_from=on_scan.brain_from,
            to_atlas=on_scan.to_atlas,
            filled=on_scan.filled,
        )
    record = on_grid.record
    numbers, flags = _check_quality(volume, on_scan, on_grid, config)
    flags = [*record.pop("flags"), *on_scan.flags, *flags]
    notes = [*record.pop("notes"), *on_scan.notes]
    numbers = {**record, **on_scan.record, **numbers}
    record.clear()
    record.update({**record_flags(flags), "notes": notes, **numbers})
    return PreparedScan(on_scan, on_grid)


def _check_quality(
    volume: Volume, on_scan: Stepped, on_grid: Prepared, config: PreparationConfig
) -> tuple[dict[str, Any], list[Flag]]:
    """Return numbers and flags of the image and of its brain mask."""
    modality = config.modality or ""
    spacing_mm = slice_spacing_mm(on_grid.grid.affine)
    findings = [
        check_image(on_grid.image, on_grid.brain, modality, config.qc),
        check_outline(on_grid.image, on_grid.brain, spacing_mm, modality, config.qc),
    ]
    if on_scan.extracted or shows_skull(volume, on_scan.brain):
        findings += [
            check_air(volume, on_scan.brain, modality, config.qc),
            check_head(volume, on_scan.brain, config.qc),
        ]
    numbers = {key: value for record, _ in findings for key, value in record.items()}
    return numbers, [flag for _, flags in findings for flag in flags]
