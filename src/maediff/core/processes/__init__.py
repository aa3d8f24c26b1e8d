"""Processes that share a machine and a folder: identity, locks, temporary folders, threads."""
