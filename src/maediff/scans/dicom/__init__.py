"""DICOM: series, studies, conversion, segmentation objects."""
