"""Small DICOM series, written from a RAS+ volume under shuffled file names."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

# (axis of the RAS+ volume, direction) of the pixels along a row, along a column, of the slices
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
    """Write integer `data` as one series and return the files, first slice first.

    Args:
        change: called with (number of the slice, its dataset); returns None to skip the slice.
        compress: transfer syntax.
        header: fields of every slice.
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
        image = Dataset()
        image.SOPClassUID, image.SOPInstanceUID = MRImageStorage, generate_uid()
        image.Modality, image.SeriesDescription = "MR", "t1_mprage"
        image.SeriesNumber, image.InstanceNumber = 3, number + 1
        image.ImageType, image.PatientPosition = ["ORIGINAL", "PRIMARY", "M"], "HFS"
        image.ImagePositionPatient = [f"{x:.10g}" for x in LPS @ (origin + number * steps[cut])]
        cosines = [LPS @ steps[axis] / np.linalg.norm(steps[axis]) for axis in (col, row)]
        image.ImageOrientationPatient = [f"{x:.10g}" for x in np.concatenate(cosines)]
        image.PixelSpacing = [f"{np.linalg.norm(steps[axis]):.10g}" for axis in (row, col)]
        image.SliceThickness = f"{np.linalg.norm(steps[cut]):.10g}"
        image.Rows, image.Columns = frame.shape
        image.SamplesPerPixel, image.PixelRepresentation = 1, 0
        image.PhotometricInterpretation = "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit = 16, 16, 15
        image.StudyID, image.StudyDate, image.StudyTime, image.PatientSex = "", "", "", ""
        for name, value in {**uids, **SECRETS, **header}.items():
            setattr(image, name, value)
        image.PixelData = np.ascontiguousarray(frame.astype("<u2")).tobytes()
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        if compress:
            image.compress(compress)
        if change is None or change(number, image) is not None:
            files.append(folder / f"IM{names[number]:04}")
            pydicom.dcmwrite(files[-1], image, enforce_file_format=True)
    return files
