"""Read DICOM series through dcm2niix, and write masks as DICOM segmentation objects."""

from maediff.scans.dicom.segmentation import check_dicom_seg, write_dicom_seg
from maediff.scans.dicom.series import find_series
from maediff.scans.dicom.studies import find_dicom

__all__ = ["check_dicom_seg", "find_dicom", "find_series", "write_dicom_seg"]
