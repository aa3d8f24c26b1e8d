"""The result of detection in one scan: arrays on the scan's own grid, regions, score, quality; and its files.

    <folder>/{anomaly_map,anomaly_mask,healthy_reference,brain_mask}.nii.gz    on the scan's own grid
    <folder>/summary.json, regions.tsv                                         numbers
    <folder>/slices.npz, volumes.npz                                           pictures of the report
    <folder>/qc.png                                                            brain outline, if somebody should look

Regions and volumes are those on the model's grid. The mask shows each region, even where the scan's slices are so
thick that the mask becomes larger than the region.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from maediff import __version__
from maediff.anomaly.regions import Region
from maediff.anomaly.snapshots import Snapshot, display_maximum, pick_slices, save_slices
from maediff.core.errors import InputError
from maediff.core.files import write_json
from maediff.core.types import Map, Mask
from maediff.detection.findings import write_regions
from maediff.detection.volumes import make_volumes
from maediff.models.thresholds import Threshold
from maediff.preparation.picture import write_picture
from maediff.preparation.prepare import PreparedScan
from maediff.scans.nifti import write_on_scan_grid
from maediff.scans.volume import Volume

IMAGES = ("anomaly_map", "anomaly_mask", "healthy_reference", "brain_mask")


@dataclass(frozen=True)
class Quality:
    """Findings of quality control.

    Args:
        flags: reasons to look at the scan before using its results; empty if none was found.
        notes: remarks on how the scan was prepared.
        record: every number of quality control, flags and notes included, as in `qc` of summary.json.
    """

    flags: tuple[str, ...]
    notes: tuple[str, ...]
    record: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class ModelGridResult:
    """The result on the model's grid: slices (n, rows, columns), as the method sees them.

    Args:
        images: intensities, 0 outside the brain, 1 at the 99th percentile in the brain.
        brain: the brain mask.
        anomaly_map, mask, reference: as in `Detection`.
        spacing_mm: voxel size along X, Y and Z.
        slice_heights_mm: height of each slice's centre in the scan's RAS+ mm.
    """

    images: Map
    brain: Mask
    anomaly_map: Map
    mask: Mask
    reference: Map
    spacing_mm: tuple[float, float, float]
    slice_heights_mm: Float[np.ndarray, " n"]

    def snapshot(self) -> Snapshot:
        """Return what the report's pictures are made of."""
        return Snapshot(
            slice_ids=np.arange(len(self.images)),
            image=self.images,
            anomaly_map=self.anomaly_map,
            brain=self.brain,
            mask=self.mask,
            spacing_mm=self.spacing_mm,
            reference=self.reference,
            z_mm=self.slice_heights_mm,
        )


@dataclass(frozen=True, eq=False)
class Detection:
    """The anomalies that a model detects in a scan. Arrays lie on the scan's own grid, with RAS+ axes.

    Args:
        name: name of the scan.
        anomaly_map: 0 to 1, 0 outside the brain.
        anomaly_mask: `anomaly_map` above `threshold`, without small components.
        healthy_reference: the scan as if healthy, in the scan's own intensities.
        brain_mask: the brain.
        regions: connected components of the mask, largest first.
        score: the highest threshold at which a region is left; 0 if none ever is.
        threshold: of the anomaly map, and its origin.
        volume_ml: volume of the mask on the model's grid.
        quality: findings of quality control.
        model, modality: name and contrast of the model.
        volume: the scan.
        prepared: the scan on its way to the model.
        on_model_grid: the result before it was resampled to the scan's grid.
    """

    name: str
    anomaly_map: Float[np.ndarray, "x y z"]
    anomaly_mask: Bool[np.ndarray, "x y z"]
    healthy_reference: Float[np.ndarray, "x y z"]
    brain_mask: Bool[np.ndarray, "x y z"]
    regions: tuple[Region, ...]
    score: float
    threshold_used: Threshold
    volume_ml: float
    quality: Quality
    model: str
    modality: str
    volume: Volume
    prepared: PreparedScan
    on_model_grid: ModelGridResult

    @property
    def threshold(self) -> float:
        """The threshold of the anomaly mask, 0 to 1."""
        return self.threshold_used.value

    @property
    def affine(self) -> Float[np.ndarray, "4 4"]:
        """Affine from voxels of the arrays to mm in RAS+."""
        return self.volume.affine

    def summary(self) -> dict[str, Any]:
        """Return the content of summary.json."""
        import torch

        return {
            "subject": self.name,
            "model": self.model,
            "model_from": "given",
            "modality": self.modality,
            "score": self.score,
            "threshold": self.threshold,
            "volume_ml": self.volume_ml,
            "regions": [asdict(region) for region in self.regions],
            "qc": dict(self.quality.record),
            "versions": {
                "maediff": __version__,
                "torch": torch.__version__,
                "numpy": np.__version__,
            },
            "scan": self.volume.source.name,
        }

    def save(
        self,
        folder: str | Path,
        *,
        summary: Mapping[str, Any] | None = None,
        also: Callable[[Path], None] | None = None,
    ) -> Path:
        """Write the files of `maediff detect` for this scan to `folder`, which is replaced if it exists.

        The folder appears when it is complete: its files are written under a hidden name first.

        Args:
            summary: further entries of summary.json.
            also: writes further files into the folder that it is called with.

        Returns:
            The folder.
        """
        folder = Path(folder)
        if folder.exists() and not (folder / "summary.json").is_file() and any(folder.iterdir()):
            raise InputError(
                f"{folder}: exists and holds no result of maediff; choose another folder"
            )
        temporary = folder.with_name(f".{folder.name}.tmp-{os.getpid()}")
        try:
            images = {name: getattr(self, name) for name in IMAGES}
            for name, image in images.items():
                write_on_scan_grid(temporary / f"{name}.nii.gz", image, self.volume)
            grid = self.on_model_grid
            chosen = pick_slices(grid.brain, grid.anomaly_map)
            save_slices(temporary / "slices.npz", grid.snapshot(), chosen)
            to_mni = self.prepared.on_scan.to_atlas
            shown = make_volumes(self.volume, images, self.threshold, to_mni)
            shown.save(temporary / "volumes.npz")
            write_regions(temporary / "regions.tsv", self.summary()["regions"])
            if self.prepared.on_scan.extracted or self.quality.flags:
                write_picture(temporary / "qc.png", self.volume, self.prepared.on_scan.brain)
            if also is not None:
                also(temporary)
            write_json(temporary / "summary.json", {**self.summary(), **(summary or {})})
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return folder

    def plot(self, at_mm: tuple[float, float, float] | None = None) -> Any:
        """Draw three planes of the scan, its healthy reference and its anomaly map, for notebooks.

        Args:
            at_mm: the point that all planes pass through, in the scan's RAS+ mm; None takes the highest value of the
                anomaly map.

        Returns:
            The matplotlib Figure. It is not attached to pyplot, so nothing has to be closed.
        """
        from matplotlib.figure import Figure

        if at_mm is None:
            center = np.unravel_index(int(self.anomaly_map.argmax()), self.anomaly_map.shape)
        else:
            voxel = np.linalg.inv(self.affine) @ [*at_mm, 1.0]
            limits = np.array(self.anomaly_map.shape) - 1
            center = tuple(np.clip(np.round(voxel[:3]), 0, limits).astype(int))
        low, high = np.percentile(self.volume.data[self.brain_mask], [0.5, 99.5])
        vmax = display_maximum(self.threshold)
        spacing = self.volume.spacing_mm
        figure = Figure(figsize=(9, 9), layout="constrained", facecolor="black")
        rows = ("Scan", "Healthy reference", "Anomaly map")
        for row, (label, data) in enumerate(
            zip(rows, (self.volume.data, self.healthy_reference, self.volume.data), strict=True)
        ):
            for column, axis in enumerate((0, 1, 2)):
                axes = figure.add_subplot(3, 3, 3 * row + column + 1)
                aspect = np.delete(spacing, axis)[1] / np.delete(spacing, axis)[0]

                def plane(array: np.ndarray, axis: int = axis) -> np.ndarray:
                    return np.asarray(np.take(array, center[axis], axis=axis).T)

                axes.imshow(
                    plane(data), cmap="gray", vmin=low, vmax=high, origin="lower", aspect=aspect
                )
                if label == "Anomaly map":
                    anomaly = plane(self.anomaly_map)
                    shown = np.ma.masked_less(anomaly, 0.1 * vmax)
                    axes.imshow(
                        shown, cmap="inferno", vmin=0, vmax=vmax, origin="lower", aspect=aspect
                    )
                    mask = plane(self.anomaly_mask)
                    if mask.any():
                        axes.contour(mask, levels=[0.5], colors="white", linewidths=0.8)
                axes.set_axis_off()
                if column == 0:
                    axes.set_title(label, color="white", loc="left")
        return figure
