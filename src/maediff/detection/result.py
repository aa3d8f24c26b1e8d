"""The result of detection in one scan: arrays on the scan's own grid, regions, score, quality.

    <folder>/anomaly_map.nii.gz, anomaly_mask.nii.gz,        images on the scan's own grid
             healthy_reference.nii.gz, brain_mask.nii.gz
    <folder>/anomaly_map_mni.nii.gz, anomaly_mask_mni.nii.gz, the same in MNI152, at 1 mm
             healthy_reference_mni.nii.gz                     (`save(mni=True)`)
    <folder>/anomaly_map.json, ...                           sidecar of each image
    <folder>/summary.json, regions.tsv                       numbers
    <folder>/slices.npz, volumes.npz                         pictures of the report
    <folder>/qc.png                                          outline of the brain, if the mask was
                                                             estimated or the scan is flagged

Regions and their volumes are those on the model's grid.
The mask shows each region, even if it is larger than the region because slices are thick.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from maediff import __version__
from maediff.anomaly.regions import Region
from maediff.anomaly.snapshots import Snapshot, display_maximum, pick_slices, save_slices
from maediff.core.errors import InputError
from maediff.core.files import write_json
from maediff.core.processes.threads import call_in_threads
from maediff.core.types import Map, Mask
from maediff.detection.findings import write_regions
from maediff.detection.sidecars import make_sidecar
from maediff.detection.to_scan import (
    grid_to_mni,
    load_mni_template,
    scan_to_mni,
)
from maediff.detection.volumes import make_volumes
from maediff.models.thresholds import IN_RESIDUAL, IN_THRESHOLDS, Threshold
from maediff.preparation.picture import write_picture
from maediff.preparation.prepare import PreparedScan
from maediff.preparation.registration import align_to_atlas
from maediff.scans.nifti import write_on_scan_grid
from maediff.scans.volume import Volume

IMAGES = ("anomaly_map", "anomaly_mask", "healthy_reference", "brain_mask")


@dataclass(frozen=True)
class Quality:
    """Findings of quality control.

    Args:
        flags: reasons to look at the scan before using its results; empty without findings.
        codes: code of each flag (`preparation.quality.ADVICE`).
        notes: remarks on the preparation of the scan.
        record: all numbers of quality control, with flags and notes: `qc` of summary.json.
    """

    flags: tuple[str, ...]
    codes: tuple[str, ...]
    notes: tuple[str, ...]
    record: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class ModelGridResult:
    """The result on the model's grid, in slices (n, rows, columns).

    Args:
        images: intensities, 0 outside the brain, 1 at the 99th percentile of the brain.
        brain: brain mask.
        anomaly_map: in the unit of `Detection.anomaly_map`, 0 outside the brain.
        mask: anomaly mask.
        reference: healthy reference on the scale of `images`.
        spacing_mm: voxel size along X, Y and Z.
        slice_heights_mm: height of the centre of each slice, in RAS+ mm of the scan.
    """

    images: Map
    brain: Mask
    anomaly_map: Map
    mask: Mask
    reference: Map
    spacing_mm: tuple[float, float, float]
    slice_heights_mm: Float[np.ndarray, " n"]

    def snapshot(self) -> Snapshot:
        """Return the data of the report's pictures."""
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
    """The anomalies that a model detects in a scan; arrays are on the scan's own grid, in RAS+.

    Args:
        name: name of the scan.
        anomaly_map: residual divided by `scale`, 0 outside the brain. 1 is the model's default
            threshold. Without a scale: the residual, 0 to 1.
        anomaly_mask: components of `anomaly_map` above `threshold`, without small ones. Each is
            extended to the connected voxels above `postprocess.extent` of the threshold.
        healthy_reference: the scan as if healthy, in the scan's own intensities.
        brain_mask: brain mask.
        regions: connected components of the mask, the largest first.
        score: lowest threshold that leaves no region; 0 if there is none at any threshold.
        threshold_used: threshold of the mask, and its origin.
        volume_ml: volume of the mask on the model's grid.
        quality: findings of quality control.
        model: name of the model.
        modality: contrast of the model.
        volume: the scan.
        prepared: the scan as the model gets it.
        on_model_grid: the result before it was resampled to the scan's grid.
        parameters: settings of the model and of the preparation, and the seed.
        scale: residual at the model's default threshold; None if the model has no valid
            thresholds.
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
    parameters: Mapping[str, Any] = field(default_factory=dict)
    scale: float | None = None

    @property
    def threshold(self) -> float:
        """Threshold of the anomaly mask, in the unit of the anomaly map."""
        return self.threshold_used.value

    @property
    def unit(self) -> str:
        """Unit of the anomaly map, score and threshold: "default threshold" or "residual"."""
        return IN_RESIDUAL if self.scale is None else IN_THRESHOLDS

    @property
    def residual(self) -> Float[np.ndarray, "x y z"]:
        """Post-processed residual, 0 to 1: the anomaly map before the division by `scale`.

        The values have the precision of float32, about 1e-7 of the value.
        """
        return (self.anomaly_map * np.float64(self.scale or 1.0)).astype(np.float32)

    @property
    def affine(self) -> Float[np.ndarray, "4 4"]:
        """Affine of the arrays: voxels -> mm in RAS+."""
        return self.volume.affine

    def summary(self) -> dict[str, Any]:
        """Return the content of summary.json."""
        return {
            "subject": self.name,
            "qc": dict(self.quality.record),
            "model": self.model,
            "model_from": "given",
            "modality": self.modality,
            "unit": self.unit,
            "scale": self.scale,
            "score": self.score,
            "threshold": self.threshold,
            "threshold_from": dict(self.threshold_used.origin),
            "volume_ml": self.volume_ml,
            "regions": [asdict(region) for region in self.regions],
            "versions": library_versions(),
            "scan": self.volume.source.name,
        }

    def to_mni(self) -> Float[np.ndarray, "4 4"]:
        """Return the affine from mm of the scan to mm of MNI152.

        A model of registered scans has registered the scan already. Otherwise this method
        registers it, which takes a few seconds.

        Raises:
            InputError: the brain cannot be registered, for example because it is too thin.
        """
        on_scan = self.prepared.on_scan
        if on_scan.to_atlas is not None:
            return on_scan.to_atlas
        try:
            return align_to_atlas(on_scan.volume, on_scan.brain).to_atlas
        except InputError as error:
            finding = str(error).partition(";")[0]
            raise InputError(f"{finding}; leave out `mni`") from None

    def images_in_mni(
        self, to_mni: Float[np.ndarray, "4 4"] | None = None
    ) -> dict[str, np.ndarray]:
        """Return anomaly map, anomaly mask and healthy reference in MNI152.

        Their grid is that of nilearn's template (1 mm, `to_scan.load_mni_template`). Map and mask
        come from the model's grid, so the mask keeps every region.

        Args:
            to_mni: mm of the scan -> mm of MNI152; None uses `self.to_mni()`.

        Raises:
            InputError: see `to_mni`.
        """
        if to_mni is None:
            to_mni = self.to_mni()
        result = self.on_model_grid
        grid, template = self.prepared.on_grid.grid, load_mni_template()
        return {
            **grid_to_mni(result.anomaly_map, result.mask, grid, to_mni),
            "healthy_reference_mni": scan_to_mni(
                self.healthy_reference, self.volume, to_mni, template
            ),
        }

    def save(
        self,
        folder: str | Path,
        *,
        mni: bool = False,
        to_mni: Float[np.ndarray, "4 4"] | None = None,
        summary: Mapping[str, Any] | None = None,
        also: Callable[[Path], None] | None = None,
    ) -> Path:
        """Write the files of `maediff detect` for this scan.

        The folder appears when it is complete; before that, its files are in a hidden folder.

        Args:
            folder: folder of the results. Results of an earlier detection in it are replaced.
            mni: also write anomaly map, anomaly mask and healthy reference in MNI152.
            to_mni: with `mni`, mm of the scan -> mm of MNI152, for example from another scan of
                the same head; None uses `self.to_mni()`.
            summary: further entries of summary.json.
            also: writes further files into the folder that it is called with.

        Returns:
            The folder.

        Raises:
            InputError: the folder holds other files than the results of a detection, or the
                brain cannot be registered to MNI152.
        """
        folder = Path(folder)
        markers = ("summary.json", "regions.tsv", "healthy_reference.json")
        with replaced_folder(folder, *markers) as temporary:
            images = {name: getattr(self, name) for name in IMAGES}
            in_mni = self.images_in_mni(to_mni) if mni else {}
            to_atlas = self.prepared.on_scan.to_atlas
            shown = make_volumes(self.volume, images, self.threshold, to_atlas)
            writes = [partial(shown.save, temporary / "volumes.npz")]
            writes += [
                partial(write_on_scan_grid, temporary / f"{name}.nii.gz", image, self.volume)
                for name, image in images.items()
            ]
            writes += [
                partial(
                    write_on_scan_grid, temporary / f"{name}.nii.gz", image, load_mni_template()
                )
                for name, image in in_mni.items()
            ]
            call_in_threads(writes)
            entries = {**self.summary(), **(summary or {})}
            for name in (*images, *in_mni):
                sidecar = make_sidecar(name, entries, self.threshold_used.origin, self.parameters)
                write_json(temporary / f"{name}.json", sidecar)
            grid = self.on_model_grid
            chosen = pick_slices(grid.brain, grid.anomaly_map)
            save_slices(temporary / "slices.npz", grid.snapshot(), chosen)
            write_regions(temporary / "regions.tsv", self.summary()["regions"])
            if self.prepared.on_scan.extracted or self.quality.flags:
                write_picture(temporary / "qc.png", self.volume, self.prepared.on_scan.brain)
            if also is not None:
                also(temporary)
            write_json(temporary / "summary.json", entries)
        return folder

    def plot(self, at_mm: tuple[float, float, float] | None = None) -> Any:
        """Show three planes of scan, healthy reference and anomaly map, for notebooks.

        Args:
            at_mm: point that all planes pass through, in RAS+ mm of the scan; None uses the
                highest value of the anomaly map.

        Returns:
            The matplotlib Figure. It is not attached to pyplot, so it needs no closing.
        """
        from matplotlib.figure import Figure

        centre = self._find_centre(at_mm)
        low, high = np.percentile(self.volume.data[self.brain_mask], [0.5, 99.5])
        grey = {"cmap": "gray", "vmin": low, "vmax": high}
        rows = {
            "Scan": self.volume.data,
            "Healthy reference": self.healthy_reference,
            "Anomaly map": self.volume.data,
        }
        figure = Figure(figsize=(9, 9), layout="constrained", facecolor="black")
        for row, (label, data) in enumerate(rows.items()):
            for axis in range(3):
                axes = figure.add_subplot(3, 3, 3 * row + axis + 1)
                spacing = np.delete(self.volume.spacing_mm, axis)
                shape = {"origin": "lower", "aspect": spacing[1] / spacing[0]}
                axes.imshow(_take_plane(data, axis, centre), **grey, **shape)
                if label == "Anomaly map":
                    self._add_anomalies(axes, axis, centre, shape)
                axes.set_axis_off()
                if axis == 0:
                    axes.set_title(label, color="white", loc="left")
        return figure

    def _find_centre(self, at_mm: tuple[float, float, float] | None) -> tuple[int, ...]:
        """Return the voxel that all planes of `plot` pass through."""
        shape = self.anomaly_map.shape
        if at_mm is None:
            return tuple(int(i) for i in np.unravel_index(self.anomaly_map.argmax(), shape))
        voxel = (np.linalg.inv(self.affine) @ [*at_mm, 1.0])[:3]
        return tuple(int(i) for i in np.clip(np.round(voxel), 0, np.array(shape) - 1))

    def _add_anomalies(
        self, axes: Any, axis: int, centre: tuple[int, ...], shape: Mapping[str, Any]
    ) -> None:
        """Add anomaly map and outline of the mask to a plane of `plot`."""
        highest = display_maximum(self.threshold, scaled=self.scale is not None)
        anomaly = _take_plane(self.anomaly_map, axis, centre)
        visible = np.ma.masked_less(anomaly, 0.1 * highest)
        axes.imshow(visible, cmap="inferno", vmin=0, vmax=highest, **shape)
        mask = _take_plane(self.anomaly_mask, axis, centre)
        if mask.any():
            axes.contour(mask, levels=[0.5], colors="white", linewidths=0.8)


def library_versions() -> dict[str, str]:
    """Return the versions that a result depends on, for summary.json and detect.json."""
    import torch

    return {"maediff": __version__, "torch": torch.__version__, "numpy": np.__version__}


def _take_plane(data: np.ndarray, axis: int, centre: tuple[int, ...]) -> np.ndarray:
    """Return the plane of a volume across `axis`, with rows upwards."""
    return np.asarray(np.take(data, centre[axis], axis=axis).T)


@contextmanager
def replaced_folder(folder: Path, *markers: str) -> Iterator[Path]:
    """Yield a hidden folder to write into; it takes the place of `folder` when it is complete.

    Args:
        folder: folder of a result. If it is a link, the link stays, and its target is replaced.
        markers: see `_refuse_other_files`.

    Raises:
        InputError: see `_refuse_other_files`.
    """
    _refuse_other_files(folder, *markers)
    place = folder.resolve()
    temporary = place.with_name(f".{place.name}.tmp-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        yield temporary
        shutil.rmtree(place, ignore_errors=True)
        os.replace(temporary, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _refuse_other_files(folder: Path, *markers: str) -> None:
    """Refuse a folder with files that no detection wrote, because `save` would delete them.

    Args:
        folder: folder of a result; it may not exist.
        markers: names of files that every such result has, and together no other result.

    Raises:
        InputError: the folder has files, and not all of these, it is a file, or it holds the
            current folder.
    """
    if folder.is_dir() and any(folder.iterdir()):
        absent = [marker for marker in markers if not (folder / marker).is_file()]
        if absent:
            raise InputError(
                f"{folder}: exists and is no result of a detection (no {absent[0]}); choose "
                "another folder"
            )
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; choose another folder")
    try:
        here = Path.cwd()
    except OSError:  # it was deleted, so it is in no folder
        return
    if here.is_relative_to(folder.resolve()):
        raise InputError(
            f"{folder}: holds the current folder, and a result replaces its folder; choose another"
        )
