"""Detection in several contrasts of one person: a result for each contrast, and a combined one.

    T1w    -> Detector -> map -------------------------------> / threshold -> |
    FLAIR  -> Detector -> map -> rigid registration to T1w --> / threshold -> | power mean
    T2w    -> Detector -> map -> rigid registration to T1w --> / threshold -> |   = combined map

The combined map is on the grid of the T1w; without a T1w, on that of the FLAIR (`GRID_ORDER`).
A raw T2w or FLAIR gets the brain mask of the T1w, moved rigidly.
`maediff detect` is a loop over `SessionDetector.detect` and `SessionDetection.save`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Bool

from maediff.anomaly.combine import DEFAULT_RULE, CombineConfig
from maediff.core.device import resolve_device
from maediff.core.errors import InputError
from maediff.core.types import MODALITIES, Modality
from maediff.detection.detector import BrainMask, Detector, Scan, make_detector
from maediff.detection.result import Detection
from maediff.detection.session.calibration import choose_threshold
from maediff.detection.session.combined import Affine, combine_detections
from maediff.detection.session.result import SessionDetection
from maediff.models.catalogue import pick
from maediff.models.model import read_model
from maediff.models.thresholds import Threshold
from maediff.preparation.registration import align_rigidly, is_local_optimum
from maediff.preparation.resample import resample
from maediff.preparation.steps import Tools
from maediff.scans.volume import Volume

GRID_ORDER: tuple[Modality, ...] = ("T1w", "FLAIR", "T2w")
"""The combined map has the grid of the first of these contrasts that a session has."""
MAX_VOLUME_DIFFERENCE = 0.15
"""Larger differences of the brain volume show that two scans are not of one head."""

Register = Callable[[Volume, Volume], Affine]


def register_scans(fixed: Volume, moving: Volume) -> Affine:
    """Register two scans of one head rigidly.

    Returns:
        mm of `fixed` -> mm of `moving`.

    Raises:
        InputError: the registration failed, or the scans fit better 10 mm away.
    """
    to_moving = align_rigidly(fixed, moving)
    if not is_local_optimum(fixed, moving, to_moving):
        raise InputError(
            f"{fixed.source}: rigid registration with {moving.source} went wrong, the two fit "
            "better 10 mm away; look at both"
        )
    return to_moving


@dataclass(frozen=True, eq=False)
class SessionDetector:
    """A detector for each contrast, and the rule that combines their maps.

    Args:
        detectors: detector of each contrast.
        rule: None leaves out the combined result.
        register: function that registers two scans of one head, as `register_scans`.

    Raises:
        InputError: a detector for another contrast.
    """

    detectors: Mapping[Modality, Detector]
    rule: CombineConfig | None = DEFAULT_RULE
    register: Register = register_scans

    def __post_init__(self) -> None:
        for contrast, detector in self.detectors.items():
            if detector.modality != contrast:
                raise InputError(
                    f"{detector.name}: a model for {detector.modality}, but it was given for "
                    f"{contrast}; choose another model"
                )

    def detect(
        self,
        scans: Mapping[Modality, Scan],
        *,
        name: str = "session",
        brain_mask: BrainMask | None = None,
        thresholds: Mapping[Modality, Threshold] | None = None,
        notes: tuple[str, ...] = (),
        seed: int = 0,
    ) -> SessionDetection:
        """Detect anomalies in the scans of one session.

        A contrast that fails does not stop the others.

        Args:
            scans: scan of each contrast, as for `Detector.detect`; no plain arrays.
            name: name of the session.
            brain_mask: brain mask of the scan that gives the grid (T1w, else FLAIR, else T2w).
            thresholds: threshold of each contrast; the model's default for the others.
            notes: remarks for the summary.
            seed: seed of the noise at test, 0 or more.

        Raises:
            InputError: no scan, a contrast without a detector, every contrast failed, or the one
                with the given brain mask.
        """
        contrasts = self._check_scans(scans)
        detections: dict[Modality, Detection] = {}
        failures: dict[Modality, str] = {}
        to_grid_scan: dict[Modality, Affine] = {}
        problems: list[str] = []
        for contrast in contrasts:
            detector = self.detectors[contrast]
            t1 = detections.get("T1w")
            if t1 is not None:
                detector = self._use_brain_of_t1(detector, t1, to_grid_scan, problems)
            try:
                detections[contrast] = detector.detect(
                    scans[contrast],
                    brain_mask=brain_mask if contrast == contrasts[0] else None,
                    modality=contrast,
                    threshold=(thresholds or {}).get(contrast),
                    seed=seed,
                )
            except InputError as error:
                if brain_mask is not None and contrast == contrasts[0]:
                    raise  # without this scan, the given mask would be ignored
                failures[contrast] = str(error)
        if not detections:
            raise InputError("; ".join(failures.values()))
        combined = None
        if self.rule is not None:
            problems += self._register_all(detections, to_grid_scan) if not problems else []
            if not problems:
                used = {contrast: self.detectors[contrast] for contrast in detections}
                limits = {contrast: each.threshold for contrast, each in detections.items()}
                chosen = choose_threshold(used, limits, self.rule)
                combined = combine_detections(name, detections, to_grid_scan, self.rule, chosen)
        return SessionDetection(
            name, detections, combined, failures, "; ".join(dict.fromkeys(problems)), notes
        )

    def _check_scans(self, scans: Mapping[Modality, Scan]) -> list[Modality]:
        """Return the contrasts in the order of `GRID_ORDER`.

        Raises:
            InputError: no scan, an unknown contrast or one without a detector, or an array.
        """
        if not scans:
            raise InputError("`scans`: empty; give a scan for T1w, T2w or FLAIR")
        for contrast, scan in scans.items():
            if contrast not in self.detectors:
                raise InputError(
                    f"`scans`: no model for {contrast!r}; choose from {', '.join(self.detectors)}"
                )
            if isinstance(scan, np.ndarray):
                raise InputError(
                    f"`scans`: {contrast} is an array without its affine; give a file or a "
                    "Volume (`maediff.read_scan`)"
                )
        return [contrast for contrast in GRID_ORDER if contrast in scans]

    def _use_brain_of_t1(
        self,
        detector: Detector,
        t1: Detection,
        to_grid_scan: dict[Modality, Affine],
        problems: list[str],
    ) -> Detector:
        """Return a detector whose brain extraction moves the brain of the T1w to the scan.

        The tool's own brain is compared with that of the T1w, which shows scans of two people.
        """
        brain_config = detector.preparation.brain
        if not brain_config.from_t1 or brain_config.tool == "none":
            return detector
        contrast = cast(Modality, detector.modality)

        def extract(volume: Volume, config: Any) -> tuple[Any, str]:
            try:
                to_t1 = self.register(volume, t1.volume)
            except InputError as error:
                problems.append(_describe_two_heads(contrast, str(error)))
                return detector.tools.extract_brain(volume, config)  # type: ignore[no-any-return]
            to_grid_scan[contrast] = to_t1
            moved = move_mask(t1.prepared.on_scan.brain, t1.volume, volume, to_t1)
            if not moved.any():
                problems.append(_describe_two_heads(contrast, "the brain of the T1w is outside"))
                return detector.tools.extract_brain(volume, config)  # type: ignore[no-any-return]
            try:
                brain, _ = detector.tools.extract_brain(volume, brain_config)
            except InputError:  # many tools fail on T2w and FLAIR
                brain = moved
            in_view = move_mask(np.ones_like(t1.brain_mask), t1.volume, volume, to_t1)
            problems.extend(_compare_volumes(contrast, volume, brain & in_view, moved))
            return moved, f"{t1.prepared.on_scan.brain_from} on {t1.volume.source.name}, moved"

        tools: Tools = replace(detector.tools, extract_brain=extract)
        preparation = replace(detector.preparation, brain=replace(brain_config, from_t1=False))
        return replace(detector, preparation=preparation, tools=tools)

    def _register_all(
        self, detections: Mapping[Modality, Detection], to_grid_scan: dict[Modality, Affine]
    ) -> list[str]:
        """Register each scan to the first one; return findings that two are not of one head.

        Args:
            detections: results; the first one gives the grid.
            to_grid_scan: for each contrast, mm of its scan -> mm of the first scan. Missing
                entries are added.
        """
        (first, base), *others = detections.items()
        to_grid_scan[first] = np.eye(4)
        problems: list[str] = []
        for contrast, detection in others:
            if contrast in to_grid_scan:  # its brain is that of the T1w, and was compared
                continue
            try:
                to_base = self.register(detection.volume, base.volume)
            except InputError as error:
                problems.append(_describe_two_heads(contrast, str(error)))
                continue
            to_grid_scan[contrast] = to_base
            volume, brain = detection.volume, detection.prepared.on_scan.brain
            base_brain = move_mask(base.prepared.on_scan.brain, base.volume, volume, to_base)
            in_view = move_mask(np.ones_like(base.brain_mask), base.volume, volume, to_base)
            problems += _compare_volumes(contrast, volume, brain & in_view, base_brain)
        return problems


def move_mask(
    mask: Bool[np.ndarray, "a b c"], source: Volume, target: Volume, to_source: Affine
) -> Bool[np.ndarray, "x y z"]:
    """Move a mask to the grid of another scan.

    Args:
        mask: mask on the grid of `source`.
        source: scan of the mask.
        target: the other scan.
        to_source: mm of `target` -> mm of `source`.
    """
    matrix = np.linalg.inv(source.affine) @ to_source @ target.affine
    return np.asarray(resample(mask, matrix, target.data.shape, "majority"))


def load_session_detector(
    contrasts: Mapping[str, str | Path | None],
    *,
    rule: CombineConfig | None = DEFAULT_RULE,
    device: str = "auto",
    batch_size: int = 16,
) -> SessionDetector:
    """Load the model of each contrast.

    Args:
        contrasts: model of each contrast (`models.model.read_model`); None for the shipped one.
        rule: see `SessionDetector`.
        device: "auto", "cpu", "cuda" or "mps".
        batch_size: forward passes computed at once.

    Raises:
        InputError: an unknown contrast, no such model, or a model for another contrast.
    """
    detectors: dict[Modality, Detector] = {}
    for contrast, reference in contrasts.items():
        if contrast not in MODALITIES:
            raise InputError(f"`scans`: {contrast!r} is none of {', '.join(MODALITIES)}")
        model = read_model(reference or pick(contrast)[0], resolve_device(device))
        detector = make_detector(model, batch_size=batch_size)
        detectors[contrast] = detector
    return SessionDetector(detectors, rule)


def detect_session(
    scans: Mapping[str, Scan],
    *,
    models: Mapping[str, str | Path] | None = None,
    name: str = "session",
    brain_mask: BrainMask | None = None,
    rule: CombineConfig | None = DEFAULT_RULE,
    device: str = "auto",
    seed: int = 0,
) -> SessionDetection:
    """Detect anomalies in several contrasts of one person, and combine them.

    Args:
        scans: scan of each contrast: a NIfTI file, a DICOM folder or a `Volume`.
        models: model of each contrast; the shipped model for the others.
        name: name of the session.
        brain_mask: brain mask of the T1w; without a T1w, of the FLAIR or the T2w.
        rule: rule that combines the maps; None leaves out the combined result.
        device: "auto", "cpu", "cuda" or "mps".
        seed: seed of the noise at test, 0 or more.

    Raises:
        InputError: no scan, an unknown contrast, no model for a contrast, all scans failed, or
            the one with the given brain mask did.

    Example:
        >>> scans = {"T1w": "p1_T1w.nii.gz", "FLAIR": "p1_FLAIR.nii.gz"}
        >>> result = maediff.detect_session(scans)       # doctest: +SKIP
        >>> result.combined.volume_ml                    # doctest: +SKIP
        21.4
        >>> result.save("results/p1")                    # doctest: +SKIP
    """
    chosen = {contrast: (models or {}).get(contrast) for contrast in scans}
    detector = load_session_detector(chosen, rule=rule, device=device)
    known = cast(Mapping[Modality, Scan], scans)
    return detector.detect(known, name=name, brain_mask=brain_mask, seed=seed)


def _compare_volumes(
    contrast: str,
    volume: Volume,
    brain: Bool[np.ndarray, "x y z"],
    grid_brain: Bool[np.ndarray, "x y z"],
) -> list[str]:
    """Return a finding if two brains in the field of view of a scan differ too much in volume."""
    ml, grid_ml = (float(mask.sum()) * volume.voxel_mm3 / 1000 for mask in (brain, grid_brain))
    difference = abs(ml - grid_ml) / max(ml, grid_ml, 1e-6)
    if difference <= MAX_VOLUME_DIFFERENCE:
        return []
    finding = (
        f"its brain has {ml:.0f} ml, and the brain of the first contrast {grid_ml:.0f} ml in the "
        f"same field of view, a difference of {difference:.0%} ({MAX_VOLUME_DIFFERENCE:.0%} at "
        "most)"
    )
    return [_describe_two_heads(contrast, finding)]


def _describe_two_heads(contrast: str, finding: str) -> str:
    """Return the message for a scan that is not of the same head as the first one."""
    return f"the {contrast} is not of the same head as the first contrast: {finding}"
