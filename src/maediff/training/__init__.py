"""Cohort and method to run folder: loop, batches, augmentation, synthetic lesions."""
