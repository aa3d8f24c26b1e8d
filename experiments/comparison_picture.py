"""A picture of some subjects of an evaluation: scan, then reference and anomaly map of each method, then truth.

python experiments/comparison_picture.py EVAL OUT.png --methods run1 run2 [--subjects a b] [--slices 1] [--vmax 0.5]
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from maediff.anomaly.snapshots import Snapshot, load_slices


def best_slice(snapshot: Snapshot) -> int:
    """The stored slice with most lesion, or most brain where there is none."""
    chosen = (
        snapshot.lesion
        if snapshot.lesion is not None and snapshot.lesion.any()
        else snapshot.brain
    )
    return int(np.argmax(chosen.sum(axis=(1, 2))))


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("eval", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--methods", nargs="+", required=True)
    parser.add_argument("--labels", nargs="+")
    parser.add_argument("--subjects", nargs="+")
    parser.add_argument(
        "--vmax", type=float, default=0.4, help="anomaly map value at the end of the colours"
    )
    args = parser.parse_args()
    first = args.eval / "slices" / args.methods[0]
    subjects = args.subjects or sorted(path.stem for path in first.glob("*.npz"))
    columns = 2 + 2 * len(args.methods)
    figure, axes = plt.subplots(
        len(subjects), columns, figsize=(1.5 * columns, 1.55 * len(subjects)), squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    grey = {"cmap": "gray", "vmin": 0, "vmax": 1}
    for row, subject in zip(axes, subjects, strict=True):
        for number, method in enumerate(args.methods):
            snapshot = load_slices(args.eval / "slices" / method / f"{subject}.npz")
            k = best_slice(snapshot)
            if number == 0:
                row[0].imshow(snapshot.image[k], **grey)
                row[-1].imshow(snapshot.image[k], **grey)
                if snapshot.lesion is not None and snapshot.lesion[k].any():
                    row[-1].contour(snapshot.lesion[k], levels=[0.5], colors="red", linewidths=0.8)
            if snapshot.reference is not None:
                row[1 + 2 * number].imshow(snapshot.reference[k] * snapshot.brain[k], **grey)
            row[2 + 2 * number].imshow(
                snapshot.anomaly_map[k], cmap="inferno", vmin=0, vmax=args.vmax
            )
    labels = args.labels or args.methods
    for axis, title in zip(
        axes[0],
        ["scan", *(t for name in labels for t in (f"{name}:\nreference", "anomaly map")), "truth"],
        strict=True,
    ):
        axis.set_title(title, fontsize=8)
    figure.subplots_adjust(0, 0, 1, 0.94, 0.02, 0.02)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=90)


if __name__ == "__main__":
    main()
