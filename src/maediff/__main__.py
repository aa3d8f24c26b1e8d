"""`python -m maediff`, the same as `maediff`."""

from maediff.cli import main

if __name__ == "__main__":
    main()
