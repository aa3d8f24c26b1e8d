"""From a scan as it was read to one that the model's grid can take: each step can be left out, each is recorded.

    read_nifti  ->  brain extraction  ->  N4  ->  registration to MNI152  ->  quality control  ->  prepare_scan
    (RAS+)         raw scans only        bias.enabled  registration.enabled      qc.*

A scan that is stripped already, or has its brain mask, skips extraction. One that looks stripped but fits the atlas
badly may be a head on a background of zeros: its brain is extracted, and taken if it is much smaller and fits better.
By default N4 is off and registration on, because that is what was better (docs/results.md).
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from maediff.core.errors import InputError
from maediff.core.types import VolumeMask
from maediff.preparation.background import RawScanError, brain_from_background
from maediff.preparation.bias_correction import correct_bias
from maediff.preparation.brain_extraction import BrainConfig, brain_from_t1, extract_brain
from maediff.preparation.config import StepsConfig
from maediff.preparation.onto_grid import Prepared
from maediff.preparation.quality import (
    check_against_atlas,
    check_contrast,
    check_voxels,
)
from maediff.preparation.registration import align_to_atlas, extent_mm
from maediff.scans.read import read_volume
from maediff.scans.reference import ScanRef
from maediff.scans.volume import Volume

logger = logging.getLogger(__name__)
GIVEN, ZERO_BACKGROUND = (
    "given",
    "from the zero background",
)  # where a mask comes from that is no guess of ours
# Heads on a background of zeros overlap MNI152 by 0.75 to 0.87 (ixi10, ds000011), and 0.72 of them or less is brain;
# stripped scans by 0.92 and more (ds002748, mslub, nearly all of lgg's 78), and a tool takes 2 % of them at most.
SKULL_OVERLAP, SKULL_SHARE = 0.90, 0.85
LARGE_ML, LARGE_MM = (
    1700.0,
    190.0,
)  # where nothing else asks for it, only stripped scans beyond this are aligned
MIN_VALUES = 16  # in a brain; scans of 8 bits have more, label maps fewer


@dataclass(frozen=True, eq=False)
class Stepped:
    """A scan after the steps, on its own grid.

    Args:
        volume: bias-corrected where that was asked for.
        brain_from: "given", "from the zero background", or the tool that drew it.
        bias_field: what `volume` was divided by.
        to_atlas: mm of the scan -> mm of MNI152, where it was registered.
        record, flags, notes: for qc.csv, image.json and summary.json.
    """

    volume: Volume
    brain: VolumeMask
    brain_from: str
    bias_field: Float[np.ndarray, "x y z"] | None = None
    to_atlas: Float[np.ndarray, "4 4"] | None = None
    record: dict[str, Any] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def extracted(self) -> bool:
        """Whether the brain mask is a guess of ours that somebody should look at."""
        return self.brain_from not in (GIVEN, ZERO_BACKGROUND)

    def add_to(self, prepared: Prepared) -> None:
        """Put what the steps found into the record of the prepared scan."""
        prepared.record.update(self.record)
        prepared.record["flags"] += self.flags
        prepared.record["notes"] += self.notes


def run_steps(
    volume: Volume,
    brain: VolumeMask | None,
    config: StepsConfig | None = None,
    *,
    modality: str,
    t1: Path | None = None,
    t1_series: str | None = None,
) -> Stepped:
    """Every step that `config` asks for.

    Args:
        brain: the mask that came with the scan.
        t1, t1_series: a T1 of the same session, whose brain a raw scan of another contrast is given.

    Raises:
        InputError: no brain was found, or no tool to find it with; or registration was asked for and failed.
    """
    config = config or StepsConfig()
    other = None if t1 is None or modality == "T1w" else ScanRef("", "", t1, "", series=t1_series)
    stepped = (
        _follow(volume, brain, GIVEN, config, [], [])
        if brain is not None
        else _found(volume, config, other)
    )
    stepped.flags.extend(check_contrast(stepped.record, modality, config.qc))
    return stepped


def _found(volume: Volume, config: StepsConfig, t1: ScanRef | None) -> Stepped:
    """What comes after the mask of a scan that came without one."""
    try:
        brain = brain_from_background(volume)
    except RawScanError:
        flags: list[str] = []
        notes: list[str] = []
        brain, brain_from = _extract(volume, config.brain, t1, flags, notes)
        return _follow(volume, brain, brain_from, config, flags, notes)
    return _stripped(volume, brain, config, t1)


def _stripped(
    volume: Volume, brain: VolumeMask, config: StepsConfig, t1: ScanRef | None
) -> Stepped:
    """What comes after the mask of a scan that looks stripped; it may be a head on a background of zeros."""
    stepped = _follow(volume, brain, ZERO_BACKGROUND, config, [], [])
    doubtful = stepped.record.get("atlas_overlap", 1.0) < SKULL_OVERLAP
    return _without_skull(stepped, volume, config, t1) if doubtful else stepped


def _without_skull(
    stepped: Stepped, volume: Volume, config: StepsConfig, t1: ScanRef | None
) -> Stepped:
    """The scan with its brain extracted if that shows that there was a skull, else `stepped`, and what to look at."""
    flags: list[str] = []
    notes: list[str] = []
    try:
        brain, brain_from = _extract(volume, config.brain, t1, flags, notes)
        if brain.sum() > SKULL_SHARE * stepped.brain.sum():
            return stepped
        notes.append("background of zeros, but a skull in it: brain extracted")
        again = _follow(volume, brain, brain_from, config, flags, notes)
    except InputError as error:
        stepped.flags.append("may still have its skull, and no brain could be extracted")
        stepped.notes.append(str(error))
        return stepped
    if again.record.get("atlas_overlap", 0.0) > stepped.record["atlas_overlap"]:
        return again
    stepped.flags.append("may still have its skull, or shows little of the brain")
    return stepped


def _large(volume: Volume, brain: VolumeMask) -> bool:
    """Whether what is not zero is more than most brains, in ml or by its length in the slice."""
    too_long = max(extent_mm(volume, brain)[:2]) > LARGE_MM
    return bool(too_long or brain.sum() * np.prod(volume.spacing_mm) / 1000 > LARGE_ML)


def _follow(
    volume: Volume,
    brain: VolumeMask,
    brain_from: str,
    config: StepsConfig,
    flags: list[str],
    notes: list[str],
) -> Stepped:
    """What comes after the brain mask; `flags` and `notes` are those that it came with."""
    record: dict[str, Any] = {}
    flags, notes = list(flags), list(notes)
    values = len(np.unique(volume.data[brain]))
    if values < MIN_VALUES:
        raise InputError(
            f"{volume.source}: only {values} different values in the brain, so a mask or a label map by "
            "its looks, not a scan; give the scan"
        )
    raw = brain_from not in (GIVEN, ZERO_BACKGROUND)
    doubtful = raw or (brain_from == ZERO_BACKGROUND and _large(volume, brain))
    if raw:
        found, said = check_voxels(volume, brain, config.qc)
        record, flags = record | found, flags + said
    corrected, bias_field = (
        correct_bias(volume, brain, config.bias) if config.bias.enabled else (volume, None)
    )
    alignment = None
    if (
        config.registration.enabled
        or config.qc.align == "always"
        or (config.qc.align == "auto" and doubtful)
    ):
        try:
            alignment = align_to_atlas(corrected, brain, quick=not config.registration.enabled)
            found, said = check_against_atlas(corrected, brain, alignment, config.qc)
            record, flags = record | found, flags + said
        except InputError as error:
            if config.registration.enabled:
                raise
            flags.append("could not be aligned to the atlas")
            notes.append(str(error))
    to_atlas = None
    if alignment is not None and config.registration.enabled:
        to_atlas = alignment.to_atlas
        record["to_atlas"] = [[round(float(value), 6) for value in row] for row in to_atlas]
    if config.bias.enabled and bias_field is not None:
        low, high = np.percentile(bias_field[brain], [1, 99])
        record["bias_range"] = [round(float(low), 3), round(float(high), 3)]
    return Stepped(corrected, brain, brain_from, bias_field, to_atlas, record, flags, notes)


def _extract(
    volume: Volume, config: BrainConfig, t1: ScanRef | None, flags: list[str], notes: list[str]
) -> tuple[VolumeMask, str]:
    """The brain of a raw scan: its T1's if there is one, else by a tool."""
    if t1 is not None and config.from_t1 and config.tool != "none":
        try:
            return _from_t1(volume, t1, config)
        except InputError as error:
            flags.append("its T1 could not be used")
            notes.append(
                f"its T1 could not be used ({error}); brain extracted from the scan itself"
            )
    return extract_brain(volume, config)


def _from_t1(volume: Volume, ref: ScanRef, config: BrainConfig) -> tuple[VolumeMask, str]:
    t1 = read_volume(ref)
    try:
        looks = brain_from_background(t1)
    except RawScanError:
        brain, tool = extract_brain(t1, config)
    else:
        found = _stripped(t1, looks, StepsConfig(brain=config), None)
        brain, tool = found.brain, found.brain_from if found.extracted else "stripped"
    return brain_from_t1(volume, t1, brain), f"{tool} on {ref.image.name}, moved rigidly"
