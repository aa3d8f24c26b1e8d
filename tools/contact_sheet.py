"""One picture of a whole cohort: every scan with the outline of its brain, its name and its numbers.

    python tools/contact_sheet.py COHORT sheet.png

It draws the `qc.png` of each scan, which `maediff preprocess` writes where it found the brain itself. The sheet shows
other people's heads: keep it out of any commit.
"""

import csv
import sys
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.image import imread

COLUMNS = 2


def main(cohort: Path, out: Path) -> None:
    with (cohort / "qc.csv").open(newline="", encoding="utf-8") as handle:
        rows = [
            row for row in csv.DictReader(handle) if (cohort / row["name"] / "qc.png").is_file()
        ]
    if not rows:
        sys.exit(
            f"{cohort}: no scan has a qc.png; it is drawn for scans whose brain was extracted, and flagged ones"
        )
    lines = -(-len(rows) // COLUMNS)
    figure = Figure(figsize=(8 * COLUMNS, 1.85 * lines), layout="constrained", facecolor="black")
    for number, axes in enumerate(figure.subplots(lines, COLUMNS, squeeze=False).flat):
        axes.axis("off")
        if number < len(rows):
            row = rows[number]
            axes.imshow(imread(cohort / row["name"] / "qc.png"))
            overlap = f", atlas {float(row['atlas_overlap']):.3f}" if row["atlas_overlap"] else ""
            title = f"{row['name']}: {float(row['brain_ml']):.0f} ml{overlap} {row['flags']}"
            axes.set_title(title, fontsize=8, color="orange" if row["flags"] else "white")
    figure.savefig(out, dpi=110)
    print(f"{len(rows)} scans: {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
