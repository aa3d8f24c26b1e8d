"""Put the quality-control pictures of a whole cohort on one sheet, for a quick visual check.

    python tools/contact_sheet.py COHORT sheet.png

`maediff preprocess` writes a picture `qc.png` for each flagged scan, and for each scan whose brain
it extracted itself. The sheet shows these pictures with name, brain volume, overlap with the atlas
and flags. The title of a flagged scan is orange.

The sheet shows people's heads. Never commit it.
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.image import imread

from maediff.core.errors import InputError

COLUMNS = 2
INCHES_PER_PICTURE = (8.0, 1.85)


def rows_with_picture(cohort: Path) -> list[dict[str, str]]:
    """Return the rows of `qc.csv` whose scans have a picture.

    Raises:
        InputError: `cohort` holds no `qc.csv`, or no scan has a picture.
    """
    table = cohort / "qc.csv"
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise InputError(
            f"{table}: {error.strerror}; give a cohort made by `maediff preprocess`"
        ) from None
    rows = [row for row in rows if (cohort / row["name"] / "qc.png").is_file()]
    if not rows:
        raise InputError(
            f"{cohort}: no scan has a qc.png; `maediff preprocess` writes one for each flagged "
            "scan and for each scan whose brain it extracted"
        )
    return rows


def draw_sheet(cohort: Path, rows: Sequence[dict[str, str]]) -> Figure:
    """Return the sheet: two pictures in each line, in the order of `rows`."""
    lines = -(-len(rows) // COLUMNS)
    width, height = INCHES_PER_PICTURE
    figure = Figure(
        figsize=(width * COLUMNS, height * lines), layout="constrained", facecolor="black"
    )
    for number, axes in enumerate(figure.subplots(lines, COLUMNS, squeeze=False).flat):
        axes.axis("off")
        if number < len(rows):
            row = rows[number]
            axes.imshow(imread(cohort / row["name"] / "qc.png"))
            overlap = f", atlas {float(row['atlas_overlap']):.3f}" if row["atlas_overlap"] else ""
            title = f"{row['name']}: {float(row['brain_ml']):.0f} ml{overlap} {row['flags']}"
            axes.set_title(title, fontsize=8, color="orange" if row["flags"] else "white")
    return figure


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cohort", type=Path, help="cohort made by `maediff preprocess`")
    parser.add_argument("out", type=Path, help="picture to write, for example sheet.png")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write the sheet and print its path."""
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        rows = rows_with_picture(args.cohort)
    except InputError as error:
        parser.exit(2, f"error: {error}\n")
    draw_sheet(args.cohort, rows).savefig(args.out, dpi=110)
    print(f"{len(rows)} scans: {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
