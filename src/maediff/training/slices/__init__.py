"""Batches of training slices: drawing, augmentation, simulated atrophy and synthetic lesions."""
