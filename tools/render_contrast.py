"""Render T1w scans of healthy brains in FLAIR or T2w contrast, as training data.

    python tools/render_contrast.py T1W_SCANS OUT FLAIR --n 3
    maediff preprocess OUT/manifest.csv -o OUT_cohort --modality FLAIR

`maediff.synthetic.rendering` describes the method. The scans must be skull-stripped or have brain
masks. Contrast, bias, resolution and noise are drawn anew for each rendering.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from maediff.core.errors import InputError
from maediff.synthetic.rendering import CONFIGS, render_scans


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source", type=Path, help="T1w scans: cohort, BIDS dataset, folder or manifest CSV"
    )
    parser.add_argument("out", type=Path, help="output folder")
    parser.add_argument("contrast", choices=sorted(CONFIGS), help="contrast of the renderings")
    parser.add_argument(
        "--n", type=int, default=3, help="renderings of each scan; default: %(default)s"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of all random numbers; default: %(default)s"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="empty an existing output folder first"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Render the scans and print the path of their manifest.

    Returns:
        The exit code: 0 if every scan was rendered, 1 if some scans failed.
    """
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        failures = render_scans(
            args.source,
            args.out,
            args.contrast,
            n=args.n,
            seed=args.seed,
            overwrite=args.overwrite,
        )
    except InputError as error:
        parser.exit(2, f"error: {error}\n")
    print(args.out / "manifest.csv")
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
