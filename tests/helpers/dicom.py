"""Small DICOM series for tests, written slice by slice from a volume in RAS+ under shuffled file names."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

# (axis of the RAS+ volume, direction) of: pixels along a row, along a column, slices from the first to the last.
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
    """Write whole numbers `data` as one series and return the files, first slice first.

    Args:
        change: called with (number of the slice, its dataset) before it is saved; None back leaves the slice out.
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
        one = Dataset()
        one.SOPClassUID, one.SOPInstanceUID, one.Modality = MRImageStorage, generate_uid(), "MR"
        one.SeriesNumber, one.InstanceNumber, one.SeriesDescription = 3, number + 1, "t1_mprage"
        one.ImageType, one.PatientPosition = ["ORIGINAL", "PRIMARY", "M"], "HFS"
        one.ImagePositionPatient = [f"{x:.10g}" for x in LPS @ (origin + number * steps[cut])]
        cosines = [LPS @ steps[axis] / np.linalg.norm(steps[axis]) for axis in (col, row)]
        one.ImageOrientationPatient = [f"{x:.10g}" for x in np.concatenate(cosines)]
        one.PixelSpacing = [f"{np.linalg.norm(steps[axis]):.10g}" for axis in (row, col)]
        one.SliceThickness = f"{np.linalg.norm(steps[cut]):.10g}"
        one.Rows, one.Columns = frame.shape
        one.SamplesPerPixel, one.PhotometricInterpretation, one.PixelRepresentation = (
            1,
            "MONOCHROME2",
            0,
        )
        one.BitsAllocated, one.BitsStored, one.HighBit = 16, 16, 15
        one.StudyID, one.StudyDate, one.StudyTime, one.PatientSex = "", "", "", ""
        for name, value in {**uids, **SECRETS, **header}.items():
            setattr(one, name, value)
        one.PixelData = np.ascontiguousarray(frame.astype("<u2")).tobytes()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        if compress:
            one.compress(compress)
        if change is None or change(number, one) is not None:
            files.append(folder / f"IM{names[number]:04}")
            pydicom.dcmwrite(files[-1], one, enforce_file_format=True)
    return files
