"""Read and write scan files (NIfTI and DICOM), and find the scans that INPUT arguments name."""

from maediff.scans.inputs.find import find_scans
from maediff.scans.nifti import read_mask, read_nifti, write_on_scan_grid, write_volume
from maediff.scans.read import read_scan, read_volume
from maediff.scans.reference import ScanRef
from maediff.scans.volume import Volume, slices_to_volume, volume_from_array, volume_to_slices

__all__ = [
    "ScanRef",
    "Volume",
    "find_scans",
    "read_mask",
    "read_nifti",
    "read_scan",
    "read_volume",
    "slices_to_volume",
    "volume_from_array",
    "volume_to_slices",
    "write_on_scan_grid",
    "write_volume",
]
