"""Anomaly mask as a DICOM segmentation object (SEG) on the frames of the scan's series.

    pixel (row, column) of a slice  ->  mm (LPS -> RAS)  ->  voxel of the mask, on the same grid

The object is binary, with one segment "Anomaly" made by an algorithm (PS3.3, A.51).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from maediff import __version__
from maediff.core.errors import InputError
from maediff.core.files import atomic_path
from maediff.scans.dicom.completeness import check_volume
from maediff.scans.dicom.convert import find_images
from maediff.scans.dicom.header import Image, silence_dicom_warnings
from maediff.scans.dicom.output import (
    check_dicom_output,
    derive_series_number,
    read_sources,
    sample_on_slice,
    shorten,
)
from maediff.scans.reference import ScanRef
from maediff.scans.volume import Volume


def check_dicom_seg(refs: Sequence[ScanRef]) -> None:
    """Check, before any work, that a DICOM SEG can be written for every scan.

    Raises:
        InputError: highdicom is not installed, or a scan is not DICOM.
    """
    check_dicom_output(refs, "DICOM SEG", "dicom_seg")


def write_dicom_seg(
    path: Path, mask: Bool[np.ndarray, "x y z"], volume: Volume, ref: ScanRef, model: str
) -> None:
    """Write a mask as DICOM SEG of the series that the scan was read from.

    An empty mask is written with all its frames, each of them empty, because a SEG without frames
    is not allowed.

    Args:
        path: the file to write.
        mask: the mask on the RAS+ grid of `volume`.
        volume: the scan.
        ref: reference to the scan, with its DICOM folder and series.
        model: name of the model that made the mask, for the description.

    Raises:
        InputError: highdicom is not installed, the scan is not DICOM, its series has changed, is
            not on the grid of `volume`, or lacks header fields that a SEG needs; or the file could
            not be written.
    """
    check_dicom_seg([ref])
    images = find_images(ref.image, ref.series or "")
    check_volume(ref.image, images)
    if len({image.path for image in images}) > 1 and any(image.frames > 1 for image in images):
        raise InputError(
            f"{ref.image}: a series of several multi-frame files, and a DICOM SEG refers to one "
            "such file only; detect without `dicom_seg`"
        )
    frames = np.stack([sample_on_slice(mask, volume, image, "dicom_seg") for image in images])
    try:
        with silence_dicom_warnings():
            segmentation = _make_segmentation(frames, images, model)
    except Exception as error:  # messages of highdicom and pydicom quote the header
        raise InputError(
            f"{ref.image}: no DICOM SEG can be made of this series ({type(error).__name__}): its "
            "headers lack fields that a SEG needs, or hold invalid ones; detect without "
            "`dicom_seg`"
        ) from None
    with atomic_path(path) as temporary, silence_dicom_warnings():
        segmentation.save_as(temporary, enforce_file_format=True)


def _make_segmentation(frames: np.ndarray, images: Sequence[Image], model: str) -> Any:
    import highdicom
    from pydicom.sr.codedict import codes

    sources = read_sources(images)
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
    return highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=frames.astype(np.uint8),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[segment],
        series_instance_uid=highdicom.UID(),
        series_number=derive_series_number(sources[0], 1),
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="maediff",
        manufacturer_model_name=shorten(model),
        software_versions=__version__,
        device_serial_number="0",
        content_label="ANOMALY",
        content_description="Anomaly mask, for research only",
        series_description="maediff anomaly mask (research)",
        omit_empty_frames=bool(frames.any()),
    )
