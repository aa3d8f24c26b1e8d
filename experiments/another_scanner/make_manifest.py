"""Write a manifest of healthy scans of two scanners: one to calibrate on, the other to score.

    python experiments/another_scanner/make_manifest.py DATA/ds002748 DATA/ixi10 OUT.csv

The val and test people of the BIDS dataset ds002748 become split val, because the shipped `t1` did
not learn from them. All scans of ixi10 become split test.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from maediff.cohort.splits import split_of
from maediff.core.errors import InputError
from maediff.core.files import write_table

COLUMNS = ("subject", "dataset", "image", "split", "healthy")


def manifest_rows(bids: Path, ixi: Path) -> list[list[str]]:
    """Return the rows of the manifest, with absolute paths.

    Raises:
        InputError: a folder has no T1w scan.
    """
    calibrate = {path.parts[-3]: path for path in sorted(bids.glob("sub-*/anat/*_T1w.nii.gz"))}
    score = {path.name.partition("-T1")[0]: path for path in sorted(ixi.glob("*-T1.nii.gz"))}
    for folder, scans in ((bids, calibrate), (ixi, score)):
        if not scans:
            raise InputError(
                f"{folder}: no T1w scan; docs/guides/data_sets.md describes the data sets"
            )
    rows = [
        [subject, bids.name, str(path.absolute()), "val", "1"]
        for subject, path in calibrate.items()
        if split_of(bids.name, subject) != "train"
    ]
    return rows + [
        [subject, ixi.name, str(path.absolute()), "test", "1"] for subject, path in score.items()
    ]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bids", type=Path, help="ds002748, a BIDS dataset")
    parser.add_argument("ixi", type=Path, help="ixi10, a folder of IXI scans")
    parser.add_argument("out", type=Path, help="manifest CSV to write")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write the manifest and print its path."""
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        write_table(args.out, COLUMNS, manifest_rows(args.bids, args.ixi))
    except InputError as error:
        parser.exit(2, f"error: {error}\n")
    print(args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
