"""Many prepared scans in a folder: manifest, splits, training slices."""
