"""Errors, atomic files, config, device and shared types."""
