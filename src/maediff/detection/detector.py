"""A trained method and everything needed to apply it to a scan.

    scan -> prepare -> model's grid -> slices -> method -> residual  -> post-processing        = anomaly map
                                                           reference -> scan's own intensities = healthy reference
    anomaly map -> threshold -> mask -> regions, score                                         = Detection

`maediff detect` is a loop over `Detector.detect` and `Detection.save`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped

from maediff.anomaly.postprocess import anomaly_mask, check_symmetry, residual_map
from maediff.anomaly.regions import find_regions
from maediff.anomaly.score import scan_score
from maediff.core.device import resolve_device
from maediff.core.errors import InputError
from maediff.detection.locations import locate_region
from maediff.detection.result import Detection, ModelGridResult, Quality
from maediff.detection.to_scan import from_grid, mask_from_grid
from maediff.methods import predict_volume
from maediff.models.model import TrainedMethod, read_model
from maediff.models.thresholds import Threshold
from maediff.preparation.config import PreparationConfig
from maediff.preparation.intensities import standardise
from maediff.preparation.prepare import PreparedScan, prepare
from maediff.preparation.steps import ZERO_BACKGROUND, Tools
from maediff.scans.inputs.find import find_scans
from maediff.scans.nifti import read_mask
from maediff.scans.read import read_volume
from maediff.scans.reference import ScanRef, remove_folders
from maediff.scans.volume import (
    Volume,
    orient_like,
    slices_to_volume,
    volume_from_array,
    volume_to_slices,
)

Scan = str | Path | ScanRef | Volume | np.ndarray


@dataclass(frozen=True, eq=False)
class Detector:
    """A trained method, ready to detect anomalies in scans. `maediff.load` makes one.

    Args:
        model: the trained method.
        preparation: how scans are prepared; grid, N4, registration and intensities must be the model's own.
        batch_size: forward passes computed at once; the result does not depend on it.
        tools: replacements for brain extraction, N4 and registration.

    Example:
        >>> model = maediff.load("t1")                       # doctest: +SKIP
        >>> model.detect("patient_T1w.nii.gz").volume_ml     # doctest: +SKIP
        12.4
    """

    model: TrainedMethod
    preparation: PreparationConfig
    batch_size: int = 16
    tools: Tools = field(default_factory=Tools)

    def __post_init__(self) -> None:
        if differing := self.preparation.differences(self.model.preparation):
            raise InputError(
                f"{self.name}: the detector prepares scans with another {', '.join(differing)} than "
                "the model's own; use `model.preparation`, with another brain or qc at most"
            )
        check_symmetry(self.model.postprocess, self.preparation.registered, self.name)

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.model.name

    @property
    def modality(self) -> str:
        """Contrast of the model's scans (T1w, T2w or FLAIR)."""
        return str(self.preparation.modality)

    def with_postprocess(self, changes: Mapping[str, Any]) -> "Detector":
        """Return the detector with some fields of the post-processing changed; stored thresholds are then invalid.

        Raises:
            SettingsError: an unknown field, or a value that does not fit.
        """
        return replace(self, model=self.model.with_postprocess(changes))

    def threshold_for(
        self,
        threshold: float | None = None,
        fpr: float | None = None,
        scan_fpr: float | None = None,
    ) -> Threshold:
        """Return a threshold: the given one, the one for a false-positive rate, or the model's default.

        Args:
            threshold: of the anomaly map, 0 to 1.
            fpr: share of healthy voxels above the threshold, counted on the model's healthy scans; no promise.
            scan_fpr: share of new healthy scans of the same population that is flagged at most, on average.

        Raises:
            InputError: several of them; a value outside its range; the model has no valid calibration.
        """
        if sum(value is not None for value in (threshold, fpr, scan_fpr)) > 1:
            raise InputError("`threshold`, `fpr` and `scan_fpr`: use only one of them")
        if threshold is not None:
            return Threshold.given(threshold)
        thresholds = self.model.thresholds
        if scan_fpr is not None:
            return thresholds.at_scan_fpr(scan_fpr)
        return thresholds.default() if fpr is None else thresholds.at_fpr(fpr)

    def detect(
        self,
        scan: Scan,
        *,
        affine: Shaped[np.ndarray, "4 4"] | None = None,
        brain_mask: str | Path | Shaped[np.ndarray, "x y z"] | None = None,
        t1: str | Path | None = None,
        modality: str | None = None,
        threshold: float | Threshold | None = None,
        fpr: float | None = None,
        scan_fpr: float | None = None,
        seed: int = 0,
    ) -> Detection:
        """Detect anomalies in one scan.

        Args:
            scan: a NIfTI file, a DICOM folder, a `Volume` (`maediff.read_scan`), or an array (x, y, z) with `affine`.
            affine: affine of an array, from voxels to mm in RAS+.
            brain_mask: brain mask on the scan's grid, as a file or as an array. An array has the voxel
                order of the scan's file or array; for a `Volume`, that of its data (RAS+). None uses
                the mask that a manifest names, or extracts the brain of a raw scan.
            t1: T1w of the same session, whose brain mask a raw T2w or FLAIR takes.
            modality: contrast of the scan, if its file name states a wrong one.
            threshold, fpr, scan_fpr: see `threshold_for`; at most one of them.
            seed: seed of the noise at test.

        Raises:
            InputError: the scan cannot be used, or is of another contrast than the model; a bad argument.
        """
        if isinstance(threshold, Threshold):
            chosen = threshold
        else:
            chosen = self.threshold_for(threshold, fpr, scan_fpr)
        ref, volume = self._open(scan, affine, modality)
        brain = self._brain_mask(brain_mask, ref, volume, native=not isinstance(scan, Volume))
        t1 = Path(t1) if t1 is not None else (ref.t1 if ref else None)
        prepared = prepare(
            volume,
            self.preparation,
            brain=brain,
            t1=t1,
            t1_series=ref.t1_series if ref and t1 == ref.t1 else None,
            tools=self.tools,
        )
        name = ref.name if ref else _stem(volume.source)
        return self._detect_prepared(name, ref, volume, prepared, chosen, seed)

    def _open(
        self, scan: Scan, affine: np.ndarray | None, modality: str | None
    ) -> tuple[ScanRef | None, Volume]:
        """Return the scan as a Volume, and its reference if it was named by a path."""
        self._check_modality(modality)
        if isinstance(scan, np.ndarray):
            if affine is None:
                raise InputError("`affine`: an array needs its affine from voxels to mm in RAS+")
            return None, volume_from_array(scan, affine)
        if affine is not None:
            raise InputError("`affine`: only for an array; a scan brings its own affine")
        if isinstance(scan, Volume):
            return None, scan
        if not isinstance(scan, ScanRef):
            path = Path(scan)
            refs = find_scans([path], self.modality if path.is_dir() else None)
            if len(refs) > 1:
                raise InputError(
                    f"{path}: holds {len(refs)} scans; give one of them, or detect in each of "
                    "maediff.find_scans(path)"
                )
            scan = refs[0]
        self.check_contrast(scan, modality)
        return scan, read_volume(scan)

    def check_contrast(self, ref: ScanRef, modality: str | None = None) -> None:
        """Refuse a scan whose file name states another contrast than the model's.

        Args:
            modality: the scan's contrast, which overrides the file name.

        Raises:
            InputError: the contrasts differ.
        """
        self._check_modality(modality)
        if modality is None and ref.modality not in (None, "other", self.modality):
            raise InputError(
                f"{ref.image}: {ref.modality} by its name, but {self.name} is a model for {self.modality}; use "
                f"`modality={self.modality!r}` if the name is wrong"
            )

    def _check_modality(self, modality: str | None) -> None:
        """Refuse a contrast that the model was not trained on.

        Raises:
            InputError: the contrasts differ.
        """
        if modality is not None and modality != self.modality:
            raise InputError(
                f"{self.name}: a model for {self.modality}, but `modality={modality!r}`; choose another "
                "model"
            )

    def _brain_mask(
        self,
        given: str | Path | np.ndarray | None,
        ref: ScanRef | None,
        volume: Volume,
        native: bool,
    ) -> Bool[np.ndarray, "x y z"] | None:
        """Return the brain mask in RAS+, or None.

        Args:
            given: the caller's mask.
            ref: the scan's reference, which may name a mask.
            volume: the scan.
            native: True if an array has the voxel order of the scan's file or array, False if it has
                the order of `volume`.
        """
        if isinstance(given, np.ndarray):
            if not given.any():
                raise InputError("`brain_mask`: empty; give a mask of the brain, or leave it out")
            try:
                return orient_like(given.astype(bool), volume, native=native)
            except ValueError as error:
                raise InputError(
                    f"`brain_mask`: {error}; give a mask on the scan's grid"
                ) from None
        path = Path(given) if given is not None else (ref.brain_mask if ref else None)
        if path is None:
            return None
        if given is not None and not path.is_file():
            raise InputError(f"`brain_mask={path}`: no such file; check the path")
        return read_mask(path, volume, allow_empty=False)

    def _detect_prepared(
        self,
        name: str,
        ref: ScanRef | None,
        volume: Volume,
        prepared: PreparedScan,
        threshold: Threshold,
        seed: int,
    ) -> Detection:
        """Reconstruct, compare, threshold, and bring the result back to the scan's own grid."""
        on_grid, on_scan, post = prepared.on_grid, prepared.on_scan, self.model.postprocess
        grid, record = on_grid.grid, on_grid.record
        images, brain = volume_to_slices(on_grid.image), volume_to_slices(on_grid.brain)
        residual, reference = predict_volume(
            self.model.method,
            images,
            brain,
            np.arange(len(images)),
            seed=seed,
            batch_size=self.batch_size,
            device=self.model.device,
        )
        x, y, z = (float(size) for size in grid.spacing_mm)
        spacing = (x, y, z)
        anomaly = residual_map(residual, brain, spacing, post, images)
        low, high = record["intensity_range"]
        linear = standardise(
            reference, record.get("deciles", []), self.preparation.normalise, back=True
        )
        on_scale = slices_to_volume((low + (high - low) * linear) * brain)
        healthy = from_grid(on_scale, grid, volume, "linear")
        if on_scan.bias_field is not None:  # the reference gets the scan's own shading
            healthy = healthy * on_scan.bias_field
        brain_mask = on_scan.brain
        if on_scan.brain_from == ZERO_BACKGROUND and on_scan.to_atlas is None:
            brain_mask = from_grid(on_grid.brain, grid, volume, "nearest")
        anomaly_map = from_grid(slices_to_volume(anomaly), grid, volume, "linear")
        anomaly_map = np.where(brain_mask, anomaly_map, 0).astype(np.float32)
        mask = anomaly_mask(anomaly, brain, threshold.value, spacing, post)
        voxel_ml = abs(float(np.linalg.det(grid.affine[:3, :3]))) / 1000
        notes = tuple(remove_folders(note, ref) if ref else note for note in record["notes"])
        return Detection(
            name=name,
            anomaly_map=anomaly_map,
            anomaly_mask=mask_from_grid(slices_to_volume(mask), grid, volume),
            healthy_reference=healthy,
            brain_mask=brain_mask,
            regions=tuple(
                locate_region(region, on_scan.to_atlas)
                for region in find_regions(
                    slices_to_volume(anomaly), slices_to_volume(mask), grid.affine
                )
            ),
            score=scan_score(anomaly, brain, spacing, post),
            threshold_used=threshold,
            volume_ml=float(mask.sum()) * voxel_ml,
            quality=Quality(tuple(record["flags"]), notes, {**record, "notes": list(notes)}),
            model=self.name,
            modality=self.modality,
            volume=volume,
            prepared=prepared,
            on_model_grid=ModelGridResult(
                images, brain, anomaly, mask, reference, spacing, grid.slice_heights_mm
            ),
        )


def load(
    name: str | Path, *, device: str = "auto", batch_size: int = 16, **test_settings: Any
) -> Detector:
    """Load a trained method.

    Args:
        name: name of a shipped model (`maediff.list_models`), a run folder, or "hf:ORG/NAME". "A+B" averages the
            references of two models.
        device: "auto", "cpu" or "cuda".
        batch_size: forward passes computed at once.
        test_settings: settings of the method that only matter at test, for example `s=24` for overlapping patches.
            The model then has no thresholds; give `threshold` to `detect`.

    Raises:
        InputError: no such model, a damaged one, or a setting that the method does not have.

    Example:
        >>> import maediff
        >>> maediff.load("t1").modality
        'T1w'
    """
    reference = str(name)
    if test_settings:
        changes = ",".join(f"{key}={_plain(value)}" for key, value in test_settings.items())
        reference = f"{reference}{',' if '@' in reference else '@'}{changes}"
    return make_detector(read_model(reference, resolve_device(device)), batch_size=batch_size)


def make_detector(model: TrainedMethod, *, batch_size: int = 16) -> Detector:
    """Return a detector that prepares scans as the model's own were.

    Raises:
        InputError: the model's post-processing has a symmetry, and its scans are not registered.
    """
    return Detector(model, model.preparation, batch_size)


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ",".join(_plain(item) for item in value) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _stem(source: Path) -> str:
    return source.name.removesuffix(".gz").removesuffix(".nii") or "scan"
