"""Objects that several test files need: brains, heads, DICOM series, methods and runs."""
