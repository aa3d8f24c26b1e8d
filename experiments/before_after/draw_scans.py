"""Draw eight synthetic scans with the masks of an older checkout and of this one.

    python experiments/before_after/draw_scans.py OLD_CHECKOUT WORK OUT.png

WORK gets the scans, and the results of `maediff detect` of both checkouts with their defaults; a
second run resumes. The lesions are synthetic, so their shape is known. Each row shows the
axial slice with most lesion, or with most detected voxels where the scan is healthy. The patient's
left is on the left. The script prints a Markdown table of the volumes and of Dice.
"""

import argparse
import io
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from matplotlib.figure import Figure
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template
from PIL import Image
from scipy import ndimage

from maediff.evaluation.metrics import dice
from maediff.synthetic import PhantomConfig, healthy_brain
from maediff.synthetic.dataset import write_volume
from maediff.synthetic.template import load_template, sample

HERE = Path(__file__).parents[2]
START = "from maediff.cli import main; main()"
COLUMNS = ("scan", "lesion", "before", "after")
WAVE_MM = 6.0
"""Standard deviation of the noise that makes the surface of a lesion lumpy."""
FADE_MM = 20.0
"""Reach of the warp that widens the ventricles."""

Ball = tuple[float, float, float, float]
"""Centre in mm of MNI152 (x, y, z) and radius in mm."""
ONE_SIDE: tuple[Ball, ...] = ((36, -20, 30, 17),)
BOTH_SIDES: tuple[Ball, ...] = tuple(
    (side * x, y, z, radius)
    for x, y, z, radius in ((27, 22, 24, 8), (28, -30, 28, 9), (30, -6, 32, 6))
    for side in (-1, 1)
)
SMALL: tuple[Ball, ...] = ((-24, 12, 30, 4), (26, -34, 30, 5), (-30, -28, 22, 4), (22, 30, 18, 5))


@dataclass(frozen=True)
class Case:
    """A scan to draw.

    Args:
        name: label of the row.
        model: shipped model.
        balls: lesions; none for a healthy scan.
        level: intensity of the lesions, relative to the median of the brain.
        seed: seed of the synthetic brain and of the lumps of the lesions.
        widening_mm: shift of the walls of the ventricles, outward.
    """

    name: str
    model: str
    balls: tuple[Ball, ...]
    level: float
    seed: int
    widening_mm: float | None = None

    @property
    def key(self) -> str:
        """Name of the scan's files."""
        return self.name.replace(",", "").replace(" ", "_")


CASES = (
    Case("FLAIR, both sides", "flair", BOTH_SIDES, 1.5, 11),
    Case("FLAIR, one side", "flair", ONE_SIDE, 1.45, 12),
    Case("FLAIR, small", "flair", SMALL, 1.5, 13),
    Case("FLAIR, healthy", "flair", (), 0, 14),
    Case("T2w, both sides", "t2", BOTH_SIDES, 1.8, 15),
    Case("T2w, old and healthy", "t2", (), 0, 16, 5),
    Case("T1w, one side", "t1", ONE_SIDE, 0.6, 17),
    Case("T1w, old and healthy", "t1", (), 0, 18, 5),
)
CONTRAST = {"flair": "FLAIR", "t2": "T2w", "t1": "T1w"}


def make_brain(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return image, brain mask and affine of a healthy brain.

    T1w is the MNI152 template of nilearn, because the folds of a synthetic T1w are unlike those of
    a scan. T2w and FLAIR are synthetic brains.
    """
    if case.model == "t1":
        template, mask = load_mni152_template(resolution=1), load_mni152_brain_mask(resolution=1)
        brain, affine = np.asarray(mask.dataobj) > 0, np.asarray(template.affine)
        image = np.where(brain, np.asarray(template.dataobj, np.float32), 0)
        if case.widening_mm:
            image = widen_ventricles(image, affine, brain, case.widening_mm)
        return image, brain, affine
    widening = {} if case.widening_mm is None else {"ventricle_mm": (case.widening_mm,) * 2}
    settings: dict[str, Any] = {"contrast": CONTRAST[case.model], **widening}
    phantom = healthy_brain((case.seed, 1), PhantomConfig(**settings))
    return phantom.image.astype(np.float32), phantom.brain, phantom.affine


def widen_ventricles(
    image: np.ndarray, affine: np.ndarray, brain: np.ndarray, shift_mm: float
) -> np.ndarray:
    """Return a template of 1 mm whose ventricles are wider by a smooth warp."""
    template = load_template()
    mm = affine[:3, :3] @ np.indices(image.shape).reshape(3, -1) + affine[:3, 3:]
    distance = sample(template.maps[1:2], template.maps_origin, 2.0, mm.reshape(3, *image.shape))[
        0
    ]
    away = np.stack(np.gradient(ndimage.gaussian_filter(distance, 2)))
    away *= np.sign(np.diag(affine)[:3]).reshape(3, 1, 1, 1)
    shift = shift_mm * np.exp(-((np.maximum(distance, 0) / FADE_MM) ** 2)) * (distance > -shift_mm)
    moved = np.indices(image.shape) - ndimage.gaussian_filter(shift, 1) * away
    warped: np.ndarray = ndimage.map_coordinates(image, moved, order=1, output=np.float32)
    widened: np.ndarray = np.where(brain, warped, 0)
    return widened


def make_scan(case: Case, folder: Path) -> None:
    """Write scan.nii.gz and lesion.nii.gz of a case."""
    image, brain, affine = make_brain(case)
    rng = np.random.default_rng(case.seed)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    mm = np.moveaxis(np.indices(image.shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    lumps = ndimage.gaussian_filter(rng.standard_normal(image.shape), WAVE_MM / spacing)
    weight = np.zeros_like(image)
    for *centre, radius in case.balls:
        distance = np.linalg.norm(mm - centre, axis=-1) + 0.25 * radius * lumps / lumps.std()
        weight = np.maximum(weight, np.clip((radius - distance) / 3.0 + 0.5, 0, 1) * brain)
    level = case.level * np.median(image[brain])
    folder.mkdir(parents=True, exist_ok=True)
    write_volume(folder / "lesion.nii.gz", (weight > 0.5).astype(np.uint8), affine)
    mixed = (image * (1 - weight) + level * weight).astype(np.float32)
    write_volume(folder / "scan.nii.gz", mixed, affine)


def detect(checkout: Path, case: Case, scan: Path, out: Path) -> np.ndarray:
    """Return the mask that the code of a checkout detects with its defaults."""
    if not list(out.glob("*/anomaly_mask.nii.gz")):
        command = ["env", f"PYTHONPATH={checkout / 'src'}", sys.executable, "-c", START, "detect"]
        options = ["--model", case.model, "-o", str(out), "--overwrite", "--quiet"]
        subprocess.run([*command, str(scan), *options], check=True)
    return np.asarray(nib.load(next(out.glob("*/anomaly_mask.nii.gz"))).dataobj) > 0


def draw_row(axes: Sequence[Any], case: Case, scan: np.ndarray, masks: list[np.ndarray]) -> None:
    """Draw the scan, and each mask over it with the outline of the lesion."""
    lesion, *found = masks
    most = lesion if lesion.any() else found[0] | found[1]
    k = int(most.sum((0, 1)).argmax()) if most.any() else scan.shape[2] // 2
    rows, columns = np.nonzero(scan[:, ::-1, k].T)
    box = np.s_[rows.min() - 1 : rows.max() + 2, columns.min() - 1 : columns.max() + 2]
    top = float(np.percentile(scan[scan > 0], 99.5))
    for axis, mask in zip(axes, (None, lesion, *found), strict=True):
        axis.imshow(scan[:, ::-1, k].T[box], cmap="gray", vmin=0, vmax=top)
        if mask is not None and mask.any():
            over = np.ma.masked_equal(mask[:, ::-1, k].T[box].astype(float), 0)
            colours = "winter" if mask is lesion else "autumn"
            axis.imshow(over, cmap=colours, vmin=0, vmax=1, alpha=0.6)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    axes[0].set_ylabel(case.name.replace(", ", "\n"), color="white", fontsize=8)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path, metavar="OLD_CHECKOUT", help="older checkout")
    parser.add_argument("work", type=Path, metavar="WORK", help="folder for scans and results")
    parser.add_argument("out", type=Path, metavar="OUT.png", help="picture to write")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = build_parser().parse_args(argv)
    figure = Figure(figsize=(6.0, 1.75 * len(CASES)), layout="constrained", facecolor="black")
    axes = figure.subplots(len(CASES), len(COLUMNS), squeeze=False)
    for axis, title in zip(axes[0], COLUMNS, strict=True):
        axis.set_title(title, color="white", fontsize=9)
    print("| scan | lesion, ml | before, ml | after, ml | Dice before | Dice after |")
    print("|---|---|---|---|---|---|")
    for row, case in zip(axes, CASES, strict=True):
        folder = args.work / case.key
        if not (folder / "scan.nii.gz").is_file():
            make_scan(case, folder)
        scan = nib.load(folder / "scan.nii.gz")
        ml = float(np.abs(np.linalg.det(scan.affine[:3, :3]))) / 1000
        lesion = np.asarray(nib.load(folder / "lesion.nii.gz").dataobj) > 0
        masks = [
            detect(checkout, case, folder / "scan.nii.gz", folder / name)
            for name, checkout in (("before", args.old), ("after", HERE))
        ]
        volumes = " | ".join(f"{mask.sum() * ml:.1f}" for mask in (lesion, *masks))
        overlaps = " | ".join(
            f"{dice(mask, lesion):.2f}" if lesion.any() else "" for mask in masks
        )
        print(f"| {case.name} | {volumes} | {overlaps} |", flush=True)
        draw_row(row, case, np.asarray(scan.dataobj), [lesion, *masks])
        for axis, mask in zip(row[1:], (lesion, *masks), strict=True):
            axis.set_xlabel(f"{mask.sum() * ml:.0f} ml", color="white", fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=90)
    Image.open(buffer).convert("RGB").quantize(128).save(args.out, optimize=True)


if __name__ == "__main__":
    main()
