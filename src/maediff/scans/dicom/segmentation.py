"""DICOM SEG out: the anomaly mask as a segmentation object on the frames of the series that the scan came from.

    pixel (row, column) of a slice  ->  mm (LPS -> RAS)  ->  voxel of the mask     both lie on the same grid

Binary, one segment "Anomaly", made by an algorithm (PS3.3, A.51). A DICOM object carries its patient: this file holds
the name and ID of the source series, as every viewer needs to put it beside the scan. Nothing else that maediff writes
does. Needs highdicom: `pip install highdicom`.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from maediff import __version__
from maediff.core.errors import InputError
from maediff.core.files import atomic_path
from maediff.scans.dicom.convert import find_images
from maediff.scans.dicom.series import Image, check_volume, silence_dicom_warnings
from maediff.scans.reference import ScanRef
from maediff.scans.volume import Volume

ON_GRID = 0.05  # voxels: a pixel that is farther from a voxel's centre lies on another grid
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
# Attributes that a SEG takes over from its source and that must be there, though they may be empty (type 2).
FROM_SOURCE = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
)


def check_dicom_seg(refs: Sequence[ScanRef]) -> None:
    """Refuse, before any work, what cannot give a DICOM SEG.

    Raises:
        InputError: highdicom is not installed, or a scan is no DICOM.
    """
    if importlib.util.find_spec("highdicom") is None:
        raise InputError(
            "--dicom-seg: needs highdicom; pip install highdicom, or leave the flag out"
        )
    for ref in refs:
        if ref.series is None and not ref.problem:
            raise InputError(
                f"{ref.image}: not DICOM, and --dicom-seg refers to a DICOM series; give the folder of "
                "the series, or leave --dicom-seg out"
            )


def write_dicom_seg(
    path: Path, mask: Bool[np.ndarray, "x y z"], volume: Volume, ref: ScanRef, model: str
) -> None:
    """Write `mask`, which lies on the grid of `volume`, as DICOM SEG of the series that `ref` names.

    An empty mask is written with all its frames, each of them empty: a SEG without a frame is not allowed.

    Args:
        model: what found the anomaly, for the description.

    Raises:
        InputError: the series is no longer as it was, or lacks what a SEG needs.
    """
    import highdicom
    import pydicom
    from pydicom.sr.codedict import codes

    images = find_images(ref.image, ref.series or "")
    check_volume(ref.image, images)
    frames = np.stack([frame_of(mask, volume, image) for image in images])
    try:
        with silence_dicom_warnings():
            source = [pydicom.dcmread(image.path, stop_before_pixels=True) for image in images]
            for one in source:
                for name in FROM_SOURCE:
                    if name not in one:
                        setattr(one, name, "")
            segment = highdicom.seg.SegmentDescription(
                segment_number=1,
                segment_label="Anomaly",
                segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
                segmented_property_type=codes.SCT.Lesion,
                algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
                algorithm_identification=highdicom.AlgorithmIdentificationSequence(
                    name="maediff", family=codes.DCM.ArtificialIntelligence, version=__version__
                ),
            )
            made = highdicom.seg.Segmentation(
                source_images=source,
                pixel_array=frames.astype(np.uint8),
                segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=[segment],
                series_instance_uid=highdicom.UID(),
                series_number=_series_number(source[0]),
                sop_instance_uid=highdicom.UID(),
                instance_number=1,
                manufacturer="maediff",
                manufacturer_model_name=_short(model),
                software_versions=__version__,
                device_serial_number="0",
                content_label="ANOMALY",
                content_description="Anomaly mask, for research only",
                series_description="maediff anomaly mask (research)",
                omit_empty_frames=bool(frames.any()),
            )
    except Exception as error:  # highdicom and pydicom quote the header in their messages
        raise InputError(
            f"{ref.image}: no DICOM SEG can be made of this series ({type(error).__name__}): its headers "
            "lack what a SEG needs; leave --dicom-seg out"
        ) from None
    with atomic_path(path) as temporary, silence_dicom_warnings():
        made.save_as(temporary, enforce_file_format=True)


def frame_of(
    mask: Bool[np.ndarray, "x y z"], volume: Volume, image: Image
) -> Bool[np.ndarray, "rows columns"]:
    """The mask at the pixels of one slice (PS3.3, C.7.6.2.1.1: position, direction cosines and spacing).

    Raises:
        InputError: the slice does not lie on the grid of `volume`.
    """
    assert (
        image.orientation is not None
        and image.position is not None
        and image.spacing_mm is not None
    )
    along_row, along_column = np.array(image.orientation).reshape(
        2, 3
    )  # towards the next column, the next row
    to_mm = np.eye(4)
    to_mm[:3, 0] = LPS_TO_RAS @ along_column * image.spacing_mm[0]
    to_mm[:3, 1] = LPS_TO_RAS @ along_row * image.spacing_mm[1]
    to_mm[:3, 3] = LPS_TO_RAS @ np.array(image.position)
    to_voxel = np.linalg.inv(volume.affine) @ to_mm
    row, column = np.indices((image.rows, image.columns))
    place = to_voxel[:3, [0, 1, 3]] @ np.stack([row.ravel(), column.ravel(), np.ones(row.size)])
    index = np.round(place).astype(int)
    inside = (index >= 0).all() and (index < np.array(mask.shape)[:, None]).all()
    if not inside or np.abs(place - index).max() > ON_GRID:
        raise InputError(
            f"{image.path}: does not lie on the grid of the converted scan; leave --dicom-seg out"
        )
    return np.asarray(mask[tuple(index)]).reshape(image.rows, image.columns)


def _series_number(source: Any) -> int:
    """Beside the source's in a viewer's list; two digits more, because series numbers are small."""
    try:
        return int(source.SeriesNumber) * 100 + 1
    except (AttributeError, TypeError, ValueError):
        return 901


def _short(text: str) -> str:
    """A string of the kind LO: 64 characters, no backslash."""
    return text.replace("\\", "/")[:64] or "maediff"
