"""`python -m maediff`."""

from maediff.cli import main

main()
