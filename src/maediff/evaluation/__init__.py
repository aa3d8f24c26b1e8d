"""Anomaly maps and truth to scores, intervals and tables; comparison of methods."""
