"""Small DICOM series, written slice by slice from a volume in RAS+ under shuffled file names."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

# (axis of the RAS+ volume, direction) of the pixels along a row, of the pixels along a column, and
# of the slices.
PLANES = {
    "axial": ((0, -1), (1, -1), (2, 1)),
    "sagittal": ((1, -1), (2, -1), (0, 1)),
    "coronal": ((0, -1), (2, -1), (1, 1)),
}
SECRETS = {
    "PatientName": "Secret^Person",
    "PatientID": "ID-4711",
    "PatientBirthDate": "19700102",
    "InstitutionName": "Secret Clinic",
    "AccessionNumber": "ACC-99",
}
LPS = np.diag([-1.0, -1.0, 1.0])


def write_series(
    folder: Path, data, affine, plane="axial", *, seed=0, change=None, compress=None, **header
):
    """Write `data`, which holds whole numbers, as one series.

    Args:
        folder: folder of the files.
        data: the volume in RAS+.
        affine: of `data`.
        plane: key of PLANES.
        seed: shuffles the file names.
        change: called with the number and the dataset of each slice before it is saved; the slice
            is omitted if it returns None.
        compress: transfer syntax.
        header: fields of every slice.

    Returns:
        The files, first slice first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (col, col_way), (row, row_way), (cut, cut_way) = PLANES[plane]
    frames = np.transpose(data, (cut, row, col))[::cut_way, ::row_way, ::col_way]
    names = np.random.default_rng(seed).permutation(len(frames))
    uids = {
        name: generate_uid()
        for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
    }
    steps = {axis: way * affine[:3, axis] for axis, way in PLANES[plane]}
    first = np.array(
        [data.shape[axis] - 1 if way < 0 else 0 for axis, way in sorted(PLANES[plane])]
    )
    origin = affine[:3, :3] @ first + affine[:3, 3]
    files = []
    for number, frame in enumerate(frames):
        ds = Dataset()
        ds.SOPClassUID = MRImageStorage
        ds.SOPInstanceUID = generate_uid()
        ds.Modality = "MR"
        ds.SeriesNumber = 3
        ds.InstanceNumber = number + 1
        ds.SeriesDescription = "t1_mprage"
        ds.ImageType = ["ORIGINAL", "PRIMARY", "M"]
        ds.PatientPosition = "HFS"
        ds.ImagePositionPatient = [f"{x:.10g}" for x in LPS @ (origin + number * steps[cut])]
        cosines = [LPS @ steps[axis] / np.linalg.norm(steps[axis]) for axis in (col, row)]
        ds.ImageOrientationPatient = [f"{x:.10g}" for x in np.concatenate(cosines)]
        ds.PixelSpacing = [f"{np.linalg.norm(steps[axis]):.10g}" for axis in (row, col)]
        ds.SliceThickness = f"{np.linalg.norm(steps[cut]):.10g}"
        ds.Rows, ds.Columns = frame.shape
        ds.SamplesPerPixel = 1
        ds.PhotometricInterpretation = "MONOCHROME2"
        ds.PixelRepresentation = 0
        ds.BitsAllocated = ds.BitsStored = 16
        ds.HighBit = 15
        ds.StudyID = ds.StudyDate = ds.StudyTime = ds.PatientSex = ""
        for name, value in {**uids, **SECRETS, **header}.items():
            setattr(ds, name, value)
        ds.PixelData = np.ascontiguousarray(frame.astype("<u2")).tobytes()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        if compress:
            ds.compress(compress)
        if change is None or change(number, ds) is not None:
            files.append(folder / f"IM{names[number]:04}")
            pydicom.dcmwrite(files[-1], ds, enforce_file_format=True)
    return files


def write_study(folder: Path, volume, *descriptions, **header) -> None:
    """Write a series of one study for each description, numbered from 1, in folders s1, s2, ..."""
    uid = generate_uid()
    for number, description in enumerate(descriptions, start=1):
        write_series(
            folder / f"s{number}",
            *volume,
            StudyInstanceUID=uid,
            SeriesNumber=number,
            SeriesDescription=description,
            **header,
        )


def drop_slices(*numbers):
    """Return a `change` that omits the slices of these numbers."""
    return lambda number, ds: None if number in numbers else ds


def write_enhanced(
    path: Path, data, affine, plane="axial", *, seed=0, change=None, change_file=None, **header
):
    """Write `data` as one enhanced (multi-frame) MR file, with the frames in shuffled order.

    Args:
        path: the file.
        data: the volume in RAS+, whole numbers.
        affine: of `data`.
        plane: key of PLANES.
        seed: shuffles the frames; None keeps their order.
        change: as in `write_series`, for the slices before they are joined.
        change_file: called with the dataset before it is saved.
        header: fields of every slice.
    """
    parts = path.parent / f".{path.name}-parts"
    files = write_series(parts, data, affine, plane, change=change, **header)
    slices = [pydicom.dcmread(file) for file in files]
    if seed is not None:
        slices = [slices[i] for i in np.random.default_rng(seed).permutation(len(slices))]
    ds = slices[0].copy()
    position_order = np.argsort(
        [
            np.dot(
                s.ImagePositionPatient, np.cross(*np.reshape(s.ImageOrientationPatient, (2, 3)))
            )
            for s in slices
        ]
    )
    rank = {int(index): number + 1 for number, index in enumerate(position_order)}
    shared, frames = Dataset(), []
    measures, orientation = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = ds.PixelSpacing, ds.SliceThickness
    orientation.ImageOrientationPatient = ds.ImageOrientationPatient
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [orientation]
    for number, part in enumerate(slices):
        frame, place, content = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = part.ImagePositionPatient
        content.StackID, content.InStackPositionNumber = "1", rank[number]
        content.DimensionIndexValues = [1, rank[number]]
        frame.PlanePositionSequence, frame.FrameContentSequence = [place], [content]
        frames.append(frame)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    for name in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "SliceThickness",
    ):
        delattr(ds, name)
    ds.SharedFunctionalGroupsSequence, ds.PerFrameFunctionalGroupsSequence = [shared], frames
    ds.NumberOfFrames = len(slices)
    ds.PixelData = b"".join(part.PixelData for part in slices)
    if change_file:
        change_file(ds)
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, ds, enforce_file_format=True)
    for file in files:
        file.unlink()
    parts.rmdir()
    return path
