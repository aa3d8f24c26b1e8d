"""Steps on a scan's own grid, before it is resampled to the model's grid.

    volume -> brain extraction -> N4           -> registration to MNI152 -> quality control
    (RAS+)    raw scans only      bias.enabled    registration.enabled      qc.*

Each step can be disabled, and each is recorded.
By default N4 is disabled and registration is enabled, because this scored best
(experiments/scan_preparation).

A skull-stripped scan, or a scan with a brain mask, skips brain extraction.
A scan that looks stripped but fits the atlas badly may be a head on a background of zeros.
Its brain is then extracted, and the result is used if it is much smaller and fits better.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from maediff.core.errors import InputError
from maediff.core.stages import stage
from maediff.core.types import VolumeMask
from maediff.preparation.background import (
    GIVEN,
    ZERO_BACKGROUND,
    Gap,
    RawScanError,
    brain_from_background,
    fill_empty_slices,
)
from maediff.preparation.bias_correction import correct_bias
from maediff.preparation.brain_extraction import brain_from_t1, extract_brain, prefer_hd_bet
from maediff.preparation.config import PreparationConfig
from maediff.preparation.quality import (
    check_against_atlas,
    check_contrast,
    check_pieces,
    check_slices,
    check_voxels,
)
from maediff.preparation.quality.flags import Flag
from maediff.preparation.registration import align_to_atlas, measure_extent_mm
from maediff.scans.read import read_volume
from maediff.scans.reference import ScanRef
from maediff.scans.volume import Volume

logger = logging.getLogger(__name__)
# Overlap with MNI152 of heads on a background of zeros: 0.75 to 0.87 (ixi10, ds000011); at most
# 0.72 of such a head is brain. Overlap of stripped scans: 0.92 and more (ds002748, mslub, nearly
# all 78 of lgg); extraction removes at most 2 % of them.
SKULL_OVERLAP, SKULL_SHARE = 0.90, 0.85
# A larger stripped scan is aligned to the atlas for quality control.
LARGE_BRAIN_ML, LARGE_BRAIN_MM = 1700.0, 190.0
# Masks of ds000011's T2w, moved from the T1w, have 0.99 to 1.01 of its volume.
MIN_T1_SHARE = 0.85
SAMPLED_VALUES = 4096
MIN_VALUES = 16  # different intensities in a brain; 8-bit scans have more, label maps have fewer


@dataclass(frozen=True)
class Tools:
    """Functions that the steps call; a caller may replace each of them.

    Args:
        extract_brain: (volume, brain config) -> brain mask and name of the tool.
        correct_bias: (volume, brain, bias config) -> corrected volume and its bias field.
        align: (volume, brain, quick=) -> alignment to MNI152.
        check_alignment: (volume, brain, alignment, qc config) -> record and flags.
    """

    extract_brain: Callable[..., Any] = extract_brain
    correct_bias: Callable[..., Any] = correct_bias
    align: Callable[..., Any] = align_to_atlas
    check_alignment: Callable[..., Any] = check_against_atlas


@dataclass(frozen=True, eq=False)
class Stepped:
    """A scan after the steps, on its own grid.

    Args:
        volume: the scan, bias-corrected if N4 was enabled.
        brain: brain mask.
        brain_from: "given", "from the zero background", or the name of the extraction tool.
        bias_field: field that `volume` was divided by.
        to_atlas: mm of the scan -> mm of MNI152; None for an unregistered scan.
        record: numbers for qc.csv, image.json and summary.json.
        flags: reasons to look at the scan.
        notes: remarks on the preparation.
        filled: gaps of empty slices that were interpolated.
    """

    volume: Volume
    brain: VolumeMask
    brain_from: str
    bias_field: Float[np.ndarray, "x y z"] | None = None
    to_atlas: Float[np.ndarray, "4 4"] | None = None
    record: dict[str, Any] = field(default_factory=dict)
    flags: list[Flag] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    filled: list[Gap] = field(default_factory=list)

    @property
    def extracted(self) -> bool:
        """True if a tool estimated the brain mask, so that somebody should look at it."""
        return self.brain_from not in (GIVEN, ZERO_BACKGROUND)


def run_steps(
    volume: Volume,
    brain: VolumeMask | None,
    config: PreparationConfig,
    *,
    t1: Path | None = None,
    t1_series: str | None = None,
    tools: Tools | None = None,
) -> Stepped:
    """Run every step that `config` enables.

    Args:
        volume: the scan.
        brain: brain mask; None extracts the brain.
        config: the preparation, with its modality.
        t1: T1w of the same session, whose brain mask a raw T2w or FLAIR uses.
        t1_series: SeriesInstanceUID of `t1`, if it is DICOM.
        tools: replacements for brain extraction, N4 and registration; None uses the defaults.

    Raises:
        InputError: no brain was found, no extraction tool is installed, the scan is a mask or a
            label map, or a step that is enabled failed.
        ValueError: `config` has no modality.
    """
    if config.modality is None:
        raise ValueError("config.modality is None: give T1w, T2w or FLAIR (config.for_modality)")
    t1_ref = None
    if t1 is not None and config.modality != "T1w":
        t1_ref = ScanRef(subject="", session="", image=t1, dataset="", series=t1_series)
    runner = _Runner(config, tools or Tools())
    volume, filled = fill_empty_slices(volume)
    stepped = (
        runner.run_without_mask(volume, t1_ref)
        if brain is None
        else runner.run_with_brain(volume, brain, GIVEN, [], [])
    )
    if t1_ref is not None and not stepped.extracted:
        stepped.flags.extend(runner.compare_with_t1(stepped, t1_ref))
    stepped.filled.extend(filled)
    numbers, flags = check_slices(stepped.brain, filled)
    stepped.record.update(numbers)
    stepped.flags.extend(flags or check_pieces(stepped.brain))
    stepped.flags.extend(check_contrast(stepped.record, config.modality, config.qc))
    return stepped


def _count_values(intensities: Float[np.ndarray, " n"]) -> int:
    """Return the number of different intensities; at `MIN_VALUES` or more, a lower bound."""
    few = len(np.unique(intensities[:SAMPLED_VALUES]))
    return few if few >= MIN_VALUES else len(np.unique(intensities))


def _is_large(volume: Volume, brain: VolumeMask) -> bool:
    """Return True if the mask exceeds most brains, in ml or by its length in the slice."""
    too_long = max(measure_extent_mm(volume, brain)[:2]) > LARGE_BRAIN_MM
    return bool(too_long or brain.sum() * volume.voxel_mm3 / 1000 > LARGE_BRAIN_ML)


@dataclass(frozen=True)
class _Runner:
    """The steps, with the settings and the functions that they share."""

    config: PreparationConfig
    tools: Tools

    def run_without_mask(self, volume: Volume, t1: ScanRef | None) -> Stepped:
        """Find the brain of a scan without a mask, then run the remaining steps."""
        try:
            brain = brain_from_background(volume)
        except RawScanError:
            flags: list[Flag] = []
            notes: list[str] = []
            brain, brain_from = self.extract(volume, t1, flags, notes)
            return self.run_with_brain(volume, brain, brain_from, flags, notes)
        return self.run_stripped(volume, brain, t1)

    def run_stripped(self, volume: Volume, brain: VolumeMask, t1: ScanRef | None) -> Stepped:
        """Run the steps on a scan that looks stripped, but may be a head in zeros."""
        stepped = self.run_with_brain(volume, brain, ZERO_BACKGROUND, [], [])
        doubtful = stepped.record.get("atlas_overlap", 1.0) < SKULL_OVERLAP
        return self.retry_without_skull(stepped, volume, t1) if doubtful else stepped

    def retry_without_skull(self, stepped: Stepped, volume: Volume, t1: ScanRef | None) -> Stepped:
        """Extract the brain; use it if it shows that there was a skull, else flag `stepped`."""
        flags: list[Flag] = []
        notes: list[str] = []
        try:
            brain, brain_from = self.extract(volume, t1, flags, notes)
            if brain.sum() > SKULL_SHARE * stepped.brain.sum():
                return stepped
            notes.append("background of zeros, but a skull in it: brain extracted")
            again = self.run_with_brain(volume, brain, brain_from, flags, notes)
        except InputError as error:
            stepped.flags.append(
                Flag("skull", "may still have its skull, and no brain could be extracted")
            )
            stepped.notes.append(str(error))
            return stepped
        if again.record.get("atlas_overlap", 0.0) > stepped.record["atlas_overlap"]:
            return again
        stepped.flags.append(
            Flag("skull", "may still have its skull, or shows little of the brain")
        )
        return stepped

    def run_with_brain(
        self,
        volume: Volume,
        brain: VolumeMask,
        brain_from: str,
        flags: list[Flag],
        notes: list[str],
    ) -> Stepped:
        """Run bias correction, registration and quality control once the brain mask is known.

        The result starts with the given `flags` and `notes`.
        """
        record: dict[str, Any] = {}
        flags, notes = list(flags), list(notes)
        registered = self.config.registered
        values = _count_values(volume.data[brain])
        if values < MIN_VALUES:
            raise InputError(
                f"{volume.source}: only {values} different values in the brain, so it looks like "
                "a mask or a label map; give the scan"
            )
        extracted = brain_from not in (GIVEN, ZERO_BACKGROUND)
        doubtful = extracted or (brain_from == ZERO_BACKGROUND and _is_large(volume, brain))
        if extracted:
            numbers, new_flags = check_voxels(volume, brain, self.config.qc)
            record, flags = record | numbers, flags + new_flags
        corrected, bias_field = volume, None
        if self.config.bias.enabled:
            corrected, bias_field = self.tools.correct_bias(volume, brain, self.config.bias)
        to_atlas = None
        align = self.config.qc.align
        if registered or align == "always" or (align == "auto" and doubtful):
            try:
                with stage("registration"):
                    alignment = self.tools.align(corrected, brain, quick=not registered)
                with stage("quality control"):
                    numbers, new_flags = self.tools.check_alignment(
                        corrected, brain, alignment, self.config.qc
                    )
                record, flags = record | numbers, flags + new_flags
                to_atlas = alignment.to_atlas if registered else None
            except InputError as error:
                if registered:
                    raise
                flags.append(Flag("aligned-badly", "could not be aligned to the atlas"))
                notes.append(str(error))
        if to_atlas is not None:
            record["to_atlas"] = [[round(float(value), 6) for value in row] for row in to_atlas]
        if bias_field is not None:
            low, high = np.percentile(bias_field[brain], [1, 99])
            record["bias_range"] = [round(float(low), 3), round(float(high), 3)]
        return Stepped(
            volume=corrected,
            brain=brain,
            brain_from=brain_from,
            bias_field=bias_field,
            to_atlas=to_atlas,
            record=record,
            flags=flags,
            notes=notes,
        )

    def extract(
        self, volume: Volume, t1: ScanRef | None, flags: list[Flag], notes: list[str]
    ) -> tuple[VolumeMask, str]:
        """Return the brain of a raw scan: that of its T1w, or by a tool.

        If the T1w cannot be used, a flag and a note are added.
        """
        brain = self.config.brain
        if t1 is not None and brain.from_t1 and brain.tool != "none":
            try:
                return self.extract_from_t1(volume, t1, flags)
            except InputError as error:
                flags.append(Flag("no-t1", "its T1 could not be used"))
                notes.append(
                    f"its T1 could not be used ({error}); brain extracted from the scan itself"
                )
        preferred = prefer_hd_bet(brain, self.config.modality)
        with stage("brain extraction"):
            return self.tools.extract_brain(volume, preferred)  # type: ignore[no-any-return]

    def compare_with_t1(self, stepped: Stepped, t1: ScanRef) -> list[Flag]:
        """Return a flag if the brain has another volume than that of a stripped T1w.

        A T1w with skull is not compared, because its brain would have to be extracted first.
        """
        try:
            volume = read_volume(t1)
            t1_ml = brain_from_background(volume).sum() * volume.voxel_mm3 / 1000
        except InputError:
            return []
        ml = stepped.brain.sum() * stepped.volume.voxel_mm3 / 1000
        if abs(ml / t1_ml - 1) <= 1 - MIN_T1_SHARE:
            return []
        finding = f"the brain has {ml:.0f} ml, and {t1_ml:.0f} ml in its T1w"
        return [Flag("mask-differs", finding)]

    def extract_from_t1(
        self, volume: Volume, ref: ScanRef, flags: list[Flag]
    ) -> tuple[VolumeMask, str]:
        """Find the brain of the session's T1w and move it rigidly to `volume`.

        A flag is added if a part of the brain is outside `volume`.
        """
        t1 = read_volume(ref)
        try:
            t1_brain = brain_from_background(t1)
        except RawScanError:
            brain, tool = self.tools.extract_brain(t1, self.config.brain)
        else:
            only_brain = _Runner(PreparationConfig(brain=self.config.brain), self.tools)
            stepped = only_brain.run_stripped(t1, t1_brain, None)
            brain, tool = stepped.brain, stepped.brain_from if stepped.extracted else "stripped"
        moved = brain_from_t1(volume, t1, brain)
        share = moved.sum() * volume.voxel_mm3 / (brain.sum() * t1.voxel_mm3)
        if share < MIN_T1_SHARE:
            flags.append(
                Flag("mask-differs", f"the mask holds {share:.0%} of the brain of its T1w")
            )
        return moved, f"{tool} on {ref.image.name}, moved rigidly"
