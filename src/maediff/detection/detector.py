"""A trained method with everything that is needed to apply it to a scan.

    scan -> prepare -> slices -> method -> residual  -> post-processing -> / scale = anomaly map
                                           reference -> scan's intensities  = healthy reference
    anomaly map -> threshold -> mask -> regions, score                      = Detection

`scale` is the residual at the model's default threshold, so 1 is this threshold in every map.
`maediff detect` is a loop over `Detector.detect` and `Detection.save`.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from maediff.anomaly.postprocess import anomaly_mask, check_symmetry, residual_map
from maediff.anomaly.reconstruction import reconstruction_error
from maediff.anomaly.regions import find_regions
from maediff.anomaly.score import scan_score
from maediff.anomaly.sensitivity import Sensitivity
from maediff.core.config import flatten
from maediff.core.device import resolve_device
from maediff.core.errors import InputError
from maediff.core.stages import stage
from maediff.core.text import hide_folders
from maediff.core.types import Map, Mask
from maediff.detection.locations import locate_region
from maediff.detection.result import Detection, ModelGridResult, Quality
from maediff.detection.to_scan import (
    brain_to_scan,
    from_grid,
    mask_from_grid,
    reference_to_scan,
)
from maediff.methods import check_finite, predict_volume
from maediff.models.model import TrainedMethod, read_model
from maediff.models.reference import model_and_settings, split_mean
from maediff.models.thresholds import Threshold, check_one_choice
from maediff.preparation.config import PreparationConfig
from maediff.preparation.prepare import PreparedScan, prepare
from maediff.preparation.quality import Flag, add_flags, check_contrast, estimate_contrast
from maediff.preparation.steps import Tools
from maediff.scans.inputs.find import find_scans
from maediff.scans.nifti import read_mask
from maediff.scans.nifti_header import check_affine, check_range
from maediff.scans.read import read_volume
from maediff.scans.reference import ScanRef, remove_folders
from maediff.scans.volume import (
    Volume,
    orient_like,
    slices_to_volume,
    volume_from_array,
    volume_to_slices,
)

logger = logging.getLogger(__name__)
UNUSUALLY_LOW = 0.15
"""Thresholds below this, in units of the default threshold, are logged."""
Scan = str | Path | ScanRef | Volume | np.ndarray
BrainMask = str | Path | np.ndarray


@dataclass(frozen=True, eq=False)
class Detector:
    """A trained method, ready to detect anomalies in scans; `maediff.load` returns one.

    Args:
        model: the trained method.
        preparation: preparation of scans. Grid, N4, registration and intensities must be those of
            the model; brain extraction and quality control may differ.
        batch_size: forward passes computed at once; changes results by rounding only.
        tools: replacements for brain extraction, N4 and registration.

    Raises:
        InputError: the preparation differs from the model's, or the model's post-processing has a
            symmetry, and its scans are not registered.

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
                f"{self.name}: the detector prepares scans with another {', '.join(differing)} "
                "than the model; use the model's own preparation"
            )
        if self.batch_size < 1:
            raise InputError(f"`batch_size={self.batch_size}`: give 1 or more")
        check_symmetry(self.model.postprocess, self.preparation.registered, self.name)

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.model.name

    @property
    def scale(self) -> float | None:
        """Residual at 1 in the unit of the anomaly map; None if the map shows the residual."""
        return self.model.scale

    @property
    def modality(self) -> str:
        """Contrast of the model's scans (T1w, T2w or FLAIR)."""
        return str(self.preparation.modality)

    def with_postprocess(self, changes: Mapping[str, Any]) -> "Detector":
        """Return the detector with changes to the post-processing.

        The stored thresholds are invalid for it, so `detect` needs `threshold`.

        Args:
            changes: values by field of `PostprocessConfig`.

        Raises:
            SettingsError: an unknown field, or a value that does not fit.
        """
        return replace(self, model=self.model.with_postprocess(changes))

    def detect(
        self,
        scan: Scan,
        *,
        affine: np.ndarray | None = None,
        brain_mask: BrainMask | None = None,
        t1: str | Path | None = None,
        modality: str | None = None,
        threshold: float | Threshold | None = None,
        fpr: float | None = None,
        scan_fpr: float | None = None,
        sensitivity: Sensitivity | None = None,
        seed: int = 0,
    ) -> Detection:
        """Detect anomalies in one scan.

        Args:
            scan: a NIfTI file, a DICOM folder, a `Volume` (`maediff.read_scan`), or an array
                (x, y, z) with `affine`.
            affine: 4 x 4 affine of an array, from voxels to mm in RAS+. The axes of the array may
                have any order and direction.
            brain_mask: brain mask on the scan's grid, as a file or as an array. An array has the
                voxel order of the scan's file or array; for a `Volume`, that of its data (RAS+).
                None uses the mask that a manifest names, or extracts the brain of a raw scan.
            t1: T1w of the same session (NIfTI file or DICOM folder), whose brain mask a raw T2w
                or FLAIR uses.
            modality: contrast of the scan, if its file name states a wrong one.
            threshold: threshold of the anomaly map; 1 is the model's default threshold.
            fpr: instead of `threshold`, a voxel-wise false-positive rate (see `threshold_for`).
            scan_fpr: instead of `threshold`, a rate of flagged scans (see `threshold_for`).
            sensitivity: instead of `threshold`, "low", "default" or "high" (see `threshold_for`).
            seed: seed of the noise at test, 0 or more.

        Raises:
            InputError: the scan cannot be used, its contrast is not the model's, or an argument
                is wrong.
        """
        if seed < 0:
            raise InputError(f"`seed={seed}`: give 0 or more")
        if not isinstance(threshold, Threshold):
            threshold = self.threshold_for(threshold, fpr, scan_fpr, sensitivity)
        if modality is not None:
            self._check_modality(modality)
        ref, volume = self._open(scan, affine, modality)
        brain = self._read_brain_mask(brain_mask, ref, volume, not isinstance(scan, Volume))
        t1_path, t1_series = (ref.t1, ref.t1_series) if ref else (None, None)
        if t1 is not None:
            t1_path, t1_series = _find_t1(Path(t1))
        prepared = prepare(
            volume,
            self.preparation,
            brain=brain,
            t1=t1_path,
            t1_series=t1_series,
            tools=self.tools,
        )
        if ref is not None and ref.modality is None and modality is None:
            self._check_unstated_contrast(ref, prepared)
        return self._detect_prepared(volume, ref, prepared, threshold, seed)

    def threshold_for(
        self,
        threshold: float | None = None,
        fpr: float | None = None,
        scan_fpr: float | None = None,
        sensitivity: Sensitivity | None = None,
    ) -> Threshold:
        """Return the given threshold, the threshold for a rate, or the model's default.

        Args:
            threshold: threshold of the anomaly map, 0 or more. 1 is the model's default
                threshold. For a model without valid thresholds (`scale` is None), it is a
                threshold of the residual, at most 1.
            fpr: largest share of healthy voxels in masks, counted on the model's healthy scans; no
                guarantee for other scans.
            scan_fpr: highest share of new healthy scans of the same population that is flagged,
                on average.
            sensitivity: "default" is the model's default threshold. "low" never detects more than
                it, and "high" never less (`anomaly.sensitivity` has the rules).

        Raises:
            InputError: several of them, a value outside its range, or a model without a valid
                calibration.
        """
        check_one_choice(threshold, fpr, scan_fpr, sensitivity)
        thresholds = self.model.thresholds
        if threshold is not None:
            given = Threshold.given(threshold, self.scale)
            self._check_given(given)
            return replace(given, origin={**given.origin, **thresholds.describe(given.residual)})
        if scan_fpr is not None:
            return thresholds.at_scan_fpr(scan_fpr)
        if fpr is not None:
            return thresholds.at_fpr(fpr)
        return thresholds.at_sensitivity(sensitivity or "default")

    def _check_given(self, threshold: Threshold) -> None:
        """Refuse a threshold above 1 without a unit, and log one that fits no unit."""
        if self.scale is None and threshold.value > 1:
            raise InputError(
                f"`threshold={threshold.value}`: no threshold is valid for {self.name}, so its "
                "anomaly map shows the residual; give a number from 0 to 1"
            )
        if self.scale is not None and threshold.value < UNUSUALLY_LOW:
            logger.warning(
                "`threshold=%g`: 1 is the default threshold of %s, which is a residual of %.4g; "
                "%g detects nearly everything",
                threshold.value,
                self.name,
                self.scale,
                threshold.value,
            )

    def check_contrast(self, ref: ScanRef, modality: str | None = None) -> None:
        """Refuse a scan whose contrast is not the model's.

        Args:
            ref: the scan; its file name may state a contrast.
            modality: contrast of the scan, which overrides the file name.

        Raises:
            InputError: the contrasts differ.
        """
        if modality is not None:
            self._check_modality(modality)
        elif ref.modality not in (None, "other", self.modality):
            raise InputError(
                f"{ref.image}: {ref.modality} by its name, but {self.name} is a model for "
                f"{self.modality}; use `modality={self.modality!r}` if the name is wrong"
            )

    def _check_unstated_contrast(self, ref: ScanRef, prepared: PreparedScan) -> None:
        """Check the contrast in the image of a scan whose name does not state it.

        The names of other scans in its folder must not decide.

        Raises:
            InputError: the image contradicts the model's contrast.
        """
        record = prepared.on_grid.record
        findings = check_contrast(record, self.modality, self.preparation.qc)
        if findings:
            raise InputError(
                f"{ref.image}: its name states no contrast, and the image {findings[0]}; "
                f"{self.name} is a model for {self.modality}; choose another model, or use "
                f"`modality={self.modality!r}` to detect in it all the same"
            )
        if estimate_contrast(record) != self.modality:
            finding = "neither the name nor the image states the contrast"
            add_flags(record, [Flag("contrast-unstated", f"{finding}; used as {self.modality}")])

    def _check_modality(self, modality: str) -> None:
        """Refuse a contrast that is not the model's."""
        if modality != self.modality:
            raise InputError(
                f"{self.name}: a model for {self.modality}, but `modality={modality!r}`; choose "
                "another model"
            )

    def _open(
        self, scan: Scan, affine: np.ndarray | None, modality: str | None
    ) -> tuple[ScanRef | None, Volume]:
        """Return the scan as a Volume, and its reference if it was named by a path."""
        if isinstance(scan, np.ndarray):
            return None, _make_volume(scan, affine)
        if affine is not None:
            raise InputError("`affine`: only for an array; a scan has its own affine")
        if isinstance(scan, Volume):
            return None, scan
        if not isinstance(scan, str | os.PathLike | ScanRef):
            raise InputError(
                f"`scan`: a {type(scan).__name__}; give a path, a Volume (`maediff.read_scan`) or "
                "an array with its affine"
            )
        ref = scan if isinstance(scan, ScanRef) else self._find_scan(Path(scan))
        self.check_contrast(ref, modality)
        with stage("read"):
            return ref, read_volume(ref)

    def _find_scan(self, path: Path) -> ScanRef:
        """Return the reference to the only scan in `path`."""
        refs = find_scans([path], self.modality if path.is_dir() else None)
        if len(refs) > 1:
            raise InputError(
                f"{path}: holds {len(refs)} scans; give one of them, or detect in each of "
                "maediff.find_scans([path])"
            )
        return refs[0]

    def _read_brain_mask(
        self, given: BrainMask | None, ref: ScanRef | None, volume: Volume, native: bool
    ) -> Bool[np.ndarray, "x y z"] | None:
        """Return the given mask, or the mask that the reference names; None without one.

        Args:
            given: the caller's mask.
            ref: reference to the scan.
            volume: the scan.
            native: True if an array has the voxel order of the scan's file or array, False if it
                has the order of `volume`.
        """
        if isinstance(given, np.ndarray):
            if given.ndim != 3:
                raise InputError(f"`brain_mask`: {given.ndim} dimensions; give a mask (x, y, z)")
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

    def _check_reconstruction(
        self, record: dict[str, Any], images: Map, reference: Map, brain: Mask
    ) -> None:
        """Compare the residual as a whole with that of healthy scans; add number and flags."""
        error = reconstruction_error(images, reference, brain)
        healthy = self.model.reconstructions
        if not np.isfinite(error):
            return
        record["reconstruction_error"] = round(error, 4)
        if healthy is not None:
            add_flags(record, [*healthy.check_model(), *healthy.check_scan(error)])

    def _detect_prepared(
        self,
        volume: Volume,
        ref: ScanRef | None,
        prepared: PreparedScan,
        threshold: Threshold,
        seed: int,
    ) -> Detection:
        """Reconstruct, compare, threshold, and resample the result to the scan's own grid."""
        on_grid, post = prepared.on_grid, self.model.postprocess
        grid, record = on_grid.grid, on_grid.record
        images, brain = volume_to_slices(on_grid.image), volume_to_slices(on_grid.brain)
        with stage("network"):
            residual, reference = predict_volume(
                self.model.method,
                images,
                brain,
                np.arange(len(images)),
                seed=seed,
                batch_size=self.batch_size,
                device=self.model.device,
                name=self.name,
            )
        x, y, z = (float(size) for size in grid.spacing_mm)
        spacing = (x, y, z)
        anomaly = residual_map(residual, brain, spacing, post, images)
        self._check_reconstruction(record, images, reference, brain)
        healthy = reference_to_scan(reference, prepared, volume, self.preparation.normalise)
        brain_mask = brain_to_scan(prepared, volume)
        scale = self.scale or 1.0
        anomaly_map = from_grid(slices_to_volume(anomaly), grid, volume, "linear") / scale
        anomaly_map = np.where(brain_mask, anomaly_map, 0).astype(np.float32)
        check_finite(self.name, anomaly_map, healthy)
        mask = anomaly_mask(anomaly, brain, threshold.residual, spacing, post)
        score = scan_score(anomaly, brain, spacing, post) / scale
        anomaly = (anomaly / scale).astype(np.float32)
        regions = find_regions(slices_to_volume(anomaly), slices_to_volume(mask), grid.affine)
        to_atlas = prepared.on_scan.to_atlas
        return Detection(
            name=ref.name if ref else _make_name(volume.source),
            anomaly_map=anomaly_map,
            anomaly_mask=mask_from_grid(slices_to_volume(mask), grid, volume),
            healthy_reference=healthy,
            brain_mask=brain_mask,
            regions=tuple(locate_region(region, to_atlas) for region in regions),
            score=score,
            threshold_used=threshold,
            volume_ml=float(mask.sum()) * grid.cell_ml,
            quality=_collect_quality(record, ref),
            model=self.name,
            modality=self.modality,
            volume=volume,
            prepared=prepared,
            on_model_grid=ModelGridResult(
                images=images,
                brain=brain,
                anomaly_map=anomaly,
                mask=mask,
                reference=reference,
                spacing_mm=spacing,
                slice_heights_mm=grid.slice_heights_mm,
            ),
            parameters=self._collect_parameters(seed),
            scale=self.scale,
        )

    def _collect_parameters(self, seed: int) -> dict[str, Any]:
        """Return the settings that a result depends on, for its sidecars."""
        model = self.model
        return {
            "method": model.settings.method,
            "config": model.config,
            "postprocess": asdict(model.postprocess),
            **self.preparation.settings(),
            "seed": seed,
        }


def load(
    name: str | Path, *, device: str = "auto", batch_size: int = 16, **test_settings: Any
) -> Detector:
    """Load a trained method.

    Args:
        name: name of a shipped model (`maediff.list_models`), a run folder, or "hf:ORG/NAME".
            "A+B" averages the references of two models.
        device: "auto", "cpu", "cuda" or "mps".
        batch_size: forward passes computed at once.
        test_settings: settings of the method that only matter at test, for example `s=24` for
            overlapping patches. The model then has no thresholds, so `detect` needs `threshold`.

    Raises:
        InputError: no such model, a damaged one, or a setting that the method does not have.

    Example:
        >>> import maediff
        >>> maediff.load("t1").modality
        'T1w'
    """
    reference = str(name)
    if test_settings:
        settings = flatten(test_settings).items()
        changes = ",".join(f"{key}={_format_setting(value)}" for key, value in settings)
        if len(split_mean(reference)) > 1:
            raise InputError(
                f"{reference}: a mean of models; write the settings of each model in its name, "
                f"for example A@{changes}+B@{changes}"
            )
        has_settings = model_and_settings(reference)[1]
        reference = f"{reference}{',' if has_settings else '@'}{changes}"
    return make_detector(read_model(reference, resolve_device(device)), batch_size=batch_size)


def make_detector(model: TrainedMethod, *, batch_size: int = 16) -> Detector:
    """Return a detector that prepares scans like those of the model.

    Raises:
        InputError: see `Detector`.
    """
    return Detector(model, model.preparation, batch_size)


def _make_volume(data: np.ndarray, affine: np.ndarray | None) -> Volume:
    """Return an array as a Volume."""
    if data.ndim != 3:
        raise InputError(f"`scan`: {data.ndim} dimensions; give an array (x, y, z)")
    if affine is None:
        raise InputError("`affine`: an array needs its affine from voxels to mm in RAS+")
    if np.shape(affine) != (4, 4):
        raise InputError(f"`affine`: has the shape {np.shape(affine)}; give a 4 x 4 matrix")
    if data.dtype.kind not in "buif" or isinstance(data, np.ma.MaskedArray) or not data.size:
        raise InputError(
            f"`scan`: a {type(data).__name__} of {data.size} values of type {data.dtype}; give a "
            "plain array of real numbers"
        )
    affine, place = np.asarray(affine, dtype=float), Path("array")
    check_affine(place, affine, data.shape)
    with np.errstate(over="ignore"):
        volume = volume_from_array(data, affine, str(place))
    check_range(place, volume.data, lambda: data.astype(np.float64))
    if volume.data.min() == volume.data.max():
        raise InputError(f"`scan`: every voxel is {volume.data.flat[0]:g}; give the scan itself")
    return volume


def _find_t1(path: Path) -> tuple[Path, str | None]:
    """Return the path of a T1w, and its series if it is DICOM."""
    if not path.exists():
        raise InputError(f"`t1={path}`: no such file or folder; check the path")
    if not path.is_dir():
        return path, None
    refs = find_scans([path], "T1w")
    if len(refs) > 1:
        raise InputError(f"`t1={path}`: holds {len(refs)} scans; give one of them")
    return refs[0].image, refs[0].series


def _format_setting(value: Any) -> str:
    """Return the value of a setting as in `RUN@key=value`."""
    if isinstance(value, list | tuple):
        return "[" + ",".join(_format_setting(item) for item in value) + "]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _collect_quality(record: Mapping[str, Any], ref: ScanRef | None) -> Quality:
    """Return the findings of quality control, without the folders of files."""
    notes = [hide_folders(remove_folders(note, ref) if ref else note) for note in record["notes"]]
    flags, codes = tuple(record["flags"]), tuple(record["flag_codes"])
    return Quality(flags, codes, tuple(notes), {**record, "notes": notes})


def _make_name(source: Path) -> str:
    """Return the name of a scan that no reference names."""
    return source.name.removesuffix(".gz").removesuffix(".nii") or "scan"
