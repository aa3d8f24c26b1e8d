"""Trained methods: weights, settings, thresholds, card; find, calibrate, export."""
