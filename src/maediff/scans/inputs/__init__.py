"""Resolve INPUT arguments to scans: files, folders, BIDS datasets, manifests, known data sets."""

from maediff.scans.inputs.find import find_scans
from maediff.scans.inputs.manifest import read_manifest, write_manifest

__all__ = ["find_scans", "read_manifest", "write_manifest"]
