"""The combined result of a session, on the grid of its first contrast.

    cell of the first model's grid -> mm of the first scan -> mm of another scan -> its cell

The map of every other contrast is thus interpolated once. Combined maps have the unit of
`anomaly.combine`: 1 is the threshold of each contrast.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from maediff.anomaly.combine import CombineConfig, combine_maps
from maediff.anomaly.postprocess import DEFAULT, PostprocessConfig, anomaly_mask
from maediff.anomaly.regions import Region, find_regions
from maediff.anomaly.score import scan_score
from maediff.anomaly.snapshots import Snapshot
from maediff.core.types import Map, Mask, Modality
from maediff.detection.locations import locate_region
from maediff.detection.result import Detection, library_versions
from maediff.detection.session.calibration import CombinedThreshold
from maediff.detection.to_scan import from_grid, grid_to_mni, mask_from_grid
from maediff.models.thresholds import OF_EACH_CONTRAST
from maediff.preparation.registration import find_centre_mm
from maediff.preparation.resample import resample
from maediff.scans.volume import Volume, slices_to_volume, volume_to_slices

Affine = Float[np.ndarray, "4 4"]
"""Matrix from mm to mm, or from voxels to mm, in RAS+."""
SMALLEST_THRESHOLD = 1e-6


@dataclass(frozen=True, eq=False)
class AlignedContrast:
    """A contrast of a session on the grids of the first contrast.

    Args:
        scan: the scan on the grid of the first scan.
        reference: its healthy reference on that grid.
        anomaly_map: its anomaly map on that grid; 1 is its threshold.
        anomaly_mask: its anomaly mask on that grid.
        slices: the same on the first model's grid, for pictures.
        covered: cells of this grid that the scan covers.
        from_first: mm of the first scan -> mm of this scan.
        shift_mm: movement of the brain's centre between the scans.
        turn_deg: rotation of the head between the scans.
    """

    scan: Volume
    reference: Float[np.ndarray, "x y z"]
    anomaly_map: Float[np.ndarray, "x y z"]
    anomaly_mask: Bool[np.ndarray, "x y z"]
    slices: Snapshot
    covered: Mask
    from_first: Affine
    shift_mm: float
    turn_deg: float


@dataclass(frozen=True, eq=False)
class CombinedDetection:
    """The combined result of a session; arrays are on the grid of the first scan, in RAS+.

    Args:
        name: name of the session.
        anomaly_map: combined map; 1 is the threshold of each contrast, 0 outside the brain.
        anomaly_mask: `anomaly_map` above `threshold`, without small components. With one contrast,
            the steps are those of its own mask.
        brain_mask: brain mask of the first contrast.
        regions: connected components of the mask, the largest first.
        score: lowest threshold that leaves no region; 0 if there is none at any threshold.
        threshold_used: threshold of the combined map, and its origin.
        volume_ml: volume of the mask on the first model's grid.
        aligned: each contrast on the grids of the first one.
        rule: the rule that combined the maps.
        slices: the result on the first model's grid.
        detections: result of each contrast, on its own grid.
    """

    name: str
    anomaly_map: Float[np.ndarray, "x y z"]
    anomaly_mask: Bool[np.ndarray, "x y z"]
    brain_mask: Bool[np.ndarray, "x y z"]
    regions: tuple[Region, ...]
    score: float
    threshold_used: CombinedThreshold
    volume_ml: float
    aligned: Mapping[Modality, AlignedContrast]
    rule: CombineConfig
    slices: Snapshot
    detections: Mapping[Modality, Detection]

    @property
    def grid_of(self) -> Modality:
        """The contrast whose grid the combined result has."""
        return next(iter(self.detections))

    @property
    def threshold(self) -> float:
        """Threshold of the combined map; 1 is the threshold of each contrast."""
        return self.threshold_used.value

    @property
    def volume(self) -> Volume:
        """The scan whose grid the combined result has."""
        return self.detections[self.grid_of].volume

    @property
    def affine(self) -> Affine:
        """Affine of the arrays: voxels -> mm in RAS+."""
        return self.volume.affine

    def to_mni(self) -> dict[Modality, Affine]:
        """Return, for each contrast, the affine from mm of its scan to mm of MNI152.

        All contrasts use the registration of the first scan, so their images fit each other.

        Raises:
            InputError: the brain of the first scan cannot be registered.
        """
        first_to_mni = self.detections[self.grid_of].to_mni()
        return {
            contrast: first_to_mni @ np.linalg.inv(aligned.from_first)
            for contrast, aligned in self.aligned.items()
        }

    def images_in_mni(self, to_mni: Affine) -> dict[str, np.ndarray]:
        """Return combined map and mask in MNI152, on the grid of nilearn's template (1 mm).

        Args:
            to_mni: mm of the first scan -> mm of MNI152.
        """
        grid = self.detections[self.grid_of].prepared.on_grid.grid
        return grid_to_mni(self.slices.anomaly_map, self.slices.mask, grid, to_mni)

    def summary(self) -> dict[str, Any]:
        """Return the content of the session's summary.json."""
        first = self.detections[self.grid_of]
        return {
            "subject": self.name,
            "model": "+".join(each.model for each in self.detections.values()),
            "model_from": "one model for each contrast",
            "modality": "+".join(self.detections),
            "score": self.score,
            "unit": OF_EACH_CONTRAST,
            "threshold": self.threshold,
            "threshold_from": dict(self.threshold_used.origin),
            "volume_ml": self.volume_ml,
            "regions": [asdict(region) for region in self.regions],
            "qc": {
                "brain_ml": first.quality.record.get("brain_ml"),
                "flags": self._collect("flags", prefixed=True),
                "flag_codes": self._collect("flag_codes"),
                "flag_advice": self._collect("flag_advice"),
                "notes": self._collect("notes", prefixed=True),
            },
            "versions": library_versions(),
            "scan": self.volume.source.name,
            "grid_of": self.grid_of,
            "rule": asdict(self.rule),
            "contrasts": {
                contrast: {
                    "scan": detection.volume.source.name,
                    "model": detection.model,
                    "threshold": detection.threshold,
                    "score": detection.score,
                    "score_in_thresholds": detection.score
                    / max(detection.threshold, SMALLEST_THRESHOLD),
                    "volume_ml": detection.volume_ml,
                    "n_regions": len(detection.regions),
                    "shift_mm": round(self.aligned[contrast].shift_mm, 2),
                    "turn_deg": round(self.aligned[contrast].turn_deg, 2),
                }
                for contrast, detection in self.detections.items()
            },
        }

    def _collect(self, key: str, *, prefixed: bool = False) -> list[str]:
        """Return a list of the quality records of all contrasts, after the contrast if asked."""
        return [
            f"{contrast}: {value}" if prefixed else str(value)
            for contrast, detection in self.detections.items()
            for value in detection.quality.record.get(key) or []
        ]


def combine_detections(
    name: str,
    detections: Mapping[Modality, Detection],
    to_first: Mapping[Modality, Affine],
    rule: CombineConfig,
    threshold: CombinedThreshold,
) -> CombinedDetection:
    """Combine the results of a session.

    Args:
        name: name of the session.
        detections: result of each contrast; the first one gives the grid.
        to_first: for each contrast, mm of its scan -> mm of the first scan.
        rule: the rule.
        threshold: threshold of the combined map (`calibration.choose_threshold`).
    """
    first = next(iter(detections.values()))
    grid, result = first.prepared.on_grid.grid, first.on_model_grid
    from_first = {contrast: np.linalg.inv(matrix) for contrast, matrix in to_first.items()}
    maps: dict[str, Map] = {}
    covered: dict[str, Mask] = {}
    for contrast, detection in detections.items():
        maps[contrast] = _move_map(detection, first, from_first[contrast])
        covered[contrast] = _find_covered(detection, first, from_first[contrast])
    brain, spacing = result.brain, result.spacing_mm
    combined = np.where(brain, combine_maps(maps, covered, rule), 0).astype(np.float32)
    post = DEFAULT
    if len(detections) == 1:  # the mask is then that of the contrast
        post = PostprocessConfig(**first.parameters["postprocess"])
    mask = anomaly_mask(combined, brain, threshold.value, spacing, post)
    regions = find_regions(slices_to_volume(combined), slices_to_volume(mask), grid.affine)
    return CombinedDetection(
        name=name,
        anomaly_map=_move_to_scan(combined, first),
        anomaly_mask=mask_from_grid(slices_to_volume(mask), grid, first.volume),
        brain_mask=first.brain_mask,
        regions=tuple(locate_region(each, first.prepared.on_scan.to_atlas) for each in regions),
        score=scan_score(combined, brain, spacing, post),
        threshold_used=threshold,
        volume_ml=float(mask.sum()) * grid.cell_ml,
        aligned={
            contrast: _align(
                detection, first, from_first[contrast], maps[contrast], covered[contrast]
            )
            for contrast, detection in detections.items()
        },
        rule=rule,
        slices=replace(result.snapshot(), anomaly_map=combined, mask=mask),
        detections=detections,
    )


def _move_map(detection: Detection, first: Detection, from_first: Affine) -> Map:
    """Return the map of a contrast on the first model's grid, divided by its threshold."""
    units = detection.on_model_grid.anomaly_map / max(detection.threshold, SMALLEST_THRESHOLD)
    if detection is first:
        return np.asarray(units, dtype=np.float32)
    return _move_slices(units.astype(np.float32), detection, first, from_first)


def _move_slices(
    data: Float[np.ndarray, "a b c"], detection: Detection, first: Detection, from_first: Affine
) -> Map:
    """Move slices of a contrast's model grid to the first model's grid."""
    grid, target = detection.prepared.on_grid.grid, first.prepared.on_grid.grid
    matrix = np.linalg.inv(grid.affine) @ from_first @ target.affine
    moved = resample(slices_to_volume(data), matrix, target.shape, "linear")
    return np.asarray(volume_to_slices(moved), dtype=np.float32)


def _find_covered(detection: Detection, first: Detection, from_first: Affine) -> Mask:
    """Return the cells of the first model's grid in the box around a contrast's brain.

    The box ends where the scan ends, so a scan of a part of the head covers only that part.
    """
    target = first.prepared.on_grid.grid
    if detection is first:
        return np.ones(first.on_model_grid.brain.shape, dtype=bool)
    brain = detection.prepared.on_scan.brain
    box = np.zeros_like(brain)
    box[tuple(slice(along.min(), along.max() + 1) for along in np.nonzero(brain))] = True
    matrix = np.linalg.inv(detection.volume.affine) @ from_first @ target.affine
    return np.asarray(volume_to_slices(resample(box, matrix, target.shape, "nearest")))


def _align(
    detection: Detection, first: Detection, from_first: Affine, units: Map, covered: Mask
) -> AlignedContrast:
    """Return a contrast on the grids of the first one, for pictures and files."""
    grid, result = first.prepared.on_grid.grid, first.on_model_grid
    own = detection.on_model_grid
    if detection is first:
        return AlignedContrast(
            scan=first.volume,
            reference=first.healthy_reference,
            anomaly_map=_move_to_scan(units, first),
            anomaly_mask=first.anomaly_mask,
            slices=replace(own.snapshot(), anomaly_map=units),
            covered=covered,
            from_first=from_first,
            shift_mm=0.0,
            turn_deg=0.0,
        )
    matrix = np.linalg.inv(detection.volume.affine) @ from_first @ first.volume.affine

    def move(data: np.ndarray) -> np.ndarray:
        return np.asarray(resample(data, matrix, first.volume.data.shape, "linear"))

    mask = _move_slices(own.mask.astype(np.float32), detection, first, from_first) >= 0.5
    mask &= result.brain
    centre = np.append(find_centre_mm(first.brain_mask, first.affine), 1.0)
    turn = np.arccos(np.clip((np.trace(from_first[:3, :3]) - 1) / 2, -1, 1))
    return AlignedContrast(
        scan=replace(first.volume, data=move(detection.volume.data)),
        reference=move(detection.healthy_reference),
        anomaly_map=_move_to_scan(units, first),
        anomaly_mask=mask_from_grid(slices_to_volume(mask), grid, first.volume),
        slices=replace(
            result.snapshot(),
            image=_move_slices(own.images, detection, first, from_first),
            anomaly_map=np.where(result.brain, units, 0),
            reference=_move_slices(own.reference, detection, first, from_first),
            mask=mask,
        ),
        covered=covered,
        from_first=from_first,
        shift_mm=float(np.linalg.norm((from_first @ centre - centre)[:3])),
        turn_deg=float(np.degrees(turn)),
    )


def _move_to_scan(units: Map, first: Detection) -> Float[np.ndarray, "x y z"]:
    """Return a map of the first model's grid on the grid of the first scan."""
    grid = first.prepared.on_grid.grid
    on_scan = from_grid(slices_to_volume(units), grid, first.volume, "linear")
    return np.where(first.brain_mask, on_scan, 0).astype(np.float32)
