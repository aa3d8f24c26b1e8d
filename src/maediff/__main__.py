"""`python -m maediff.cli`."""

from maediff.cli import main

main()
