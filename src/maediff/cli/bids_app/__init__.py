"""Command line of the BIDS App, `maediff-bids`."""

from maediff.cli.bids_app.main import main

__all__ = ["main"]
