"""Parts that all DICOM outputs share: checks before any work, the source series, places of pixels.

A DICOM object names its patient: outputs hold the name and ID of the source series, because every
viewer needs them to show an output with the scan. No other file of maediff holds patient data.
The writers need highdicom: `pip install highdicom`.
"""

import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped

from maediff.core.errors import InputError
from maediff.scans.dicom.geometry import pixel_to_voxel
from maediff.scans.dicom.header import Image, read_dataset
from maediff.scans.reference import ScanRef
from maediff.scans.volume import Volume

ON_GRID = 0.05  # voxels: a pixel farther from the centre of a voxel is on another grid
# Attributes of patient and study that an output copies. They must exist and may be empty (type 2).
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


def check_dicom_output(refs: Sequence[ScanRef], name: str, option: str) -> None:
    """Check, before any work, that a DICOM output can be written for every scan.

    Args:
        refs: the scans.
        name: name of the output in messages, for example "DICOM SEG".
        option: argument of `detect` that asks for the output.

    Raises:
        InputError: highdicom is not installed, or a scan is not DICOM.
    """
    if importlib.util.find_spec("highdicom") is None:
        raise InputError(
            f"a {name} needs highdicom; pip install highdicom, or detect without `{option}`"
        )
    for ref in refs:
        if ref.series is None and not ref.problem:
            raise InputError(
                f"{ref.image}: not DICOM, and a {name} refers to a DICOM series; give the "
                f"folder of the series, or detect without `{option}`"
            )


def read_sources(images: Sequence[Image]) -> list[Any]:
    """Return the headers of the files of a series, with empty fields where FROM_SOURCE is absent.

    Args:
        images: headers of the slices. A file with several frames is returned once.
    """
    files = {image.path: image for image in images}.values()
    sources = [read_dataset(image.path, image.syntax, with_pixels=False) for image in files]
    for source in sources:
        for name in FROM_SOURCE:
            if name not in source:
                setattr(source, name, "")
    return sources


def sample_on_slice(
    data: Shaped[np.ndarray, "x y z"], volume: Volume, image: Image, option: str
) -> Shaped[np.ndarray, "rows columns"]:
    """Return the values of an array at the pixels of one DICOM slice.

    Args:
        data: an array on the RAS+ grid of `volume`.
        volume: the scan.
        image: header of the slice.
        option: argument of `detect` that asks for the output, for the message.

    Raises:
        InputError: the slice is not on the grid of `volume`.
    """
    to_voxel = pixel_to_voxel(image, volume.affine)
    row, column = np.indices((image.rows, image.columns))
    place = to_voxel @ np.stack([row.ravel(), column.ravel(), np.ones(row.size)])
    index = np.round(place).astype(int)
    inside = (index >= 0).all() and (index < np.array(data.shape)[:, None]).all()
    if not inside or np.abs(place - index).max() > ON_GRID:
        raise InputError(
            f"{image.path}: not on the grid of the converted scan; detect without `{option}`"
        )
    return np.asarray(data[tuple(index)]).reshape(image.rows, image.columns)


def derive_series_number(source: Any, place: int) -> int:
    """Return a series number that viewers list near the source's: the source's * 100 + place."""
    try:
        return int(source.SeriesNumber) * 100 + place
    except (AttributeError, TypeError, ValueError):
        return 900 + place


def shorten(text: str) -> str:
    """Return `text` as a valid Long String (PS3.5, LO): 64 characters at most, no backslash."""
    return text.replace("\\", "/")[:64] or "maediff"
