"""What several tests need: synthetic brains and heads, DICOM series, methods and runs."""
