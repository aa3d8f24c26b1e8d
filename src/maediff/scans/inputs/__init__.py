"""INPUT arguments to scans: files, folders, BIDS, manifests and known layouts."""
