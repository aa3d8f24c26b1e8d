"""Residual to anomaly map, mask, regions, score and thresholds (numpy and scipy, no torch)."""

from maediff.anomaly.postprocess import PostprocessConfig, anomaly_mask, residual_map
from maediff.anomaly.regions import Region, find_regions
from maediff.anomaly.score import scan_score
from maediff.anomaly.thresholds import conformal_threshold, threshold_from_healthy

__all__ = [
    "PostprocessConfig",
    "Region",
    "anomaly_mask",
    "conformal_threshold",
    "find_regions",
    "residual_map",
    "scan_score",
    "threshold_from_healthy",
]
