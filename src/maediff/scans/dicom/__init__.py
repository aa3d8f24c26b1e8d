"""DICOM: series, studies, conversion, segmentation objects and secondary captures."""

from maediff.scans.dicom.secondary_capture import check_dicom_sc, write_dicom_sc
from maediff.scans.dicom.segmentation import check_dicom_seg, write_dicom_seg
from maediff.scans.dicom.series import find_series
from maediff.scans.dicom.studies import find_dicom

__all__ = [
    "check_dicom_sc",
    "check_dicom_seg",
    "find_dicom",
    "find_series",
    "write_dicom_sc",
    "write_dicom_seg",
]
