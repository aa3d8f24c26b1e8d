"""Draw subjects of an evaluation: scan, healthy reference and anomaly maps, true lesion.

    python tools/comparison_picture.py EVAL OUT.png --methods run pddpm --subjects a b

EVAL is a folder written by `maediff evaluate`. Each row is a subject, and shows the stored slice
with most lesion, or with most brain if the subject has no lesion. The red outline is the true
lesion.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from maediff.anomaly.snapshots import Snapshot, load_slices
from maediff.core.errors import InputError

GREY = {"cmap": "gray", "vmin": 0, "vmax": 1}
INCHES_PER_SLICE = (1.5, 1.55)


def best_slice(snapshot: Snapshot) -> int:
    """Return the index of the stored slice with most lesion, or with most brain without one."""
    lesion = snapshot.lesion
    mask = lesion if lesion is not None and lesion.any() else snapshot.brain
    return int(np.argmax(mask.sum(axis=(1, 2))))


def draw_row(axes: Sequence, snapshots: Sequence[Snapshot], vmax: float) -> None:
    """Draw one subject: its scan, two pictures per snapshot, and the truth in the last axes."""
    first = snapshots[0]
    k = best_slice(first)
    axes[0].imshow(first.image[k], **GREY)
    axes[-1].imshow(first.image[k], **GREY)
    if first.lesion is not None and first.lesion[k].any():
        axes[-1].contour(first.lesion[k], levels=[0.5], colors="red", linewidths=0.8)
    for number, snapshot in enumerate(snapshots):
        k = best_slice(snapshot)
        if snapshot.reference is not None:
            axes[1 + 2 * number].imshow(snapshot.reference[k] * snapshot.brain[k], **GREY)
        axes[2 + 2 * number].imshow(snapshot.anomaly_map[k], cmap="inferno", vmin=0, vmax=vmax)


def draw_comparison(
    slices: Path,
    methods: Sequence[str],
    subjects: Sequence[str],
    labels: Sequence[str],
    vmax: float,
) -> Figure:
    """Return the picture.

    Args:
        slices: EVAL/slices, which holds METHOD/SUBJECT.npz.
        methods: names of the runs or baselines, as in EVAL/scores.csv.
        labels: a title for each method.
        vmax: anomaly score that has the brightest colour.

    Raises:
        InputError: the slices of a method and subject are missing or damaged.
    """
    columns = 2 + 2 * len(methods)
    width, height = INCHES_PER_SLICE
    figure = Figure(figsize=(width * columns, height * len(subjects)))
    axes = figure.subplots(len(subjects), columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for row, subject in zip(axes, subjects, strict=True):
        snapshots = [load_slices(slices / method / f"{subject}.npz") for method in methods]
        draw_row(row, snapshots, vmax)
    titles = [title for label in labels for title in (f"{label}:\nreference", "anomaly map")]
    for axis, title in zip(axes[0], ["scan", *titles, "truth"], strict=True):
        axis.set_title(title, fontsize=8)
    figure.subplots_adjust(0, 0, 1, 0.94, 0.02, 0.02)
    return figure


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("eval", type=Path, help="folder written by `maediff evaluate`")
    parser.add_argument("out", type=Path, help="picture to write, for example comparison.png")
    parser.add_argument(
        "--methods", nargs="+", required=True, metavar="NAME", help="runs or baselines to show"
    )
    parser.add_argument(
        "--labels", nargs="+", metavar="TEXT", help="a title for each method; default: its name"
    )
    parser.add_argument(
        "--subjects", nargs="+", metavar="NAME", help="default: all with stored slices"
    )
    parser.add_argument(
        "--vmax",
        type=float,
        default=0.4,
        help="anomaly score that has the brightest colour; default: %(default)s",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write the picture."""
    parser = build_parser()
    args = parser.parse_args(argv)
    slices = args.eval / "slices"
    labels = args.labels or args.methods
    subjects = args.subjects or sorted(
        path.stem for path in (slices / args.methods[0]).glob("*.npz")
    )
    try:
        if len(labels) != len(args.methods):
            raise InputError(f"{len(labels)} labels for {len(args.methods)} methods: give as many")
        if not subjects:
            raise InputError(
                f"{slices / args.methods[0]}: no stored slices; give a folder written by "
                "`maediff evaluate`, and a method that it scored"
            )
        figure = draw_comparison(slices, args.methods, subjects, labels, args.vmax)
    except InputError as error:
        parser.exit(2, f"error: {error}\n")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=90)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
