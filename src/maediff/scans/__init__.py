"""Scan files: NIfTI and DICOM in and out, and the resolution of INPUT arguments."""
