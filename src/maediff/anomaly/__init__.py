"""Residual to anomaly map, mask, regions, score and thresholds (numpy only)."""
