"""Render T1w scans of healthy brains in FLAIR or T2w contrast (maediff.synthetic.rendering), to train on.

python tools/render_contrast.py COHORT_OR_BIDS OUT FLAIR|T2w [--n 3] [--seed 0]
maediff preprocess OUT/manifest.csv -o OUT_cohort --modality FLAIR|T2w
"""

import argparse
import sys
from pathlib import Path

from maediff.core.errors import InputError
from maediff.synthetic.rendering import CONFIGS, render_scans

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source", type=Path, help="cohort of T1w scans, BIDS dataset, folder or manifest"
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("contrast", choices=list(CONFIGS))
    parser.add_argument("--n", type=int, default=3, help="renderings a scan")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overwrite", action="store_true")
    args = parser.parse_args()
    try:
        failed = render_scans(
            args.source,
            args.out,
            args.contrast,
            n=args.n,
            seed=args.seed,
            overwrite=args.overwrite,
        )
    except InputError as error:
        sys.exit(f"error: {error}")
    print(args.out / "manifest.csv")
    sys.exit("\n".join(failed) or 0)
