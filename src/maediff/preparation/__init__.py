"""One scan to the model's grid: brain, N4, MNI152, quality, intensities."""
