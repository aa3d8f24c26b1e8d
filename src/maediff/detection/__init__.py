"""One scan and one model to a detection; folders of scans."""
