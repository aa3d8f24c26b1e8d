"""Estimate T2w-like scans of patients from their T1w and FLAIR, for evaluation only.

    python experiments/t2_like_scans/make_pseudo_t2.py PAIRED FLAIR.csv T1W.csv OUT

Never train on these scans. They exist because no T2w scan with a tumour is at hand. This script
learns the relation of the three contrasts voxel by voxel from one patient who has all three
(PAIRED), and applies it to other patients:

    log T2w = f(T1w, FLAIR)     f: gradient boosting with absolute error

Lesion voxels of PAIRED are rare, so each counts 50 times. The intensities of each patient are
first mapped onto those of PAIRED, by the percentiles of healthy tissue. Anatomy, lesions,
resolution and masks stay real. The contrast is an estimate: fluid and oedema become bright, but
nothing is known about blood, iron and calcification.
"""

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import binary_dilation

from maediff.core.errors import InputError
from maediff.core.files import write_table

PERCENTILES = np.linspace(0.5, 99.5, 100)
JITTER = (0.95, 1.0, 1.05)
"""Factors on both intensities. Averaging over them smooths the steps of the regression trees."""
LESION_WEIGHT = 50.0
TRAINING_VOXELS = 300_000
LESION_MARGIN = 3
"""Voxels around a lesion that do not count as healthy."""
COLUMNS = ("subject", "image", "brain_mask", "lesion_mask", "split", "healthy")

Volume = Float[np.ndarray, "x y z"]
Percentiles = Float[np.ndarray, " p"]


@dataclass(frozen=True)
class Patient:
    """The files of a patient who has a T1w and a FLAIR scan on the same grid."""

    subject: str
    t1w: Path
    flair: Path
    brain_mask: Path
    lesion_mask: Path


def read(path: Path) -> Volume:
    """Return the intensities of a scan, or the values of a mask.

    Raises:
        InputError: the file is missing or not NIfTI.
    """
    try:
        return np.asarray(nib.nifti1.load(path).dataobj, dtype=np.float32)
    except (OSError, nib.filebasedimages.ImageFileError) as error:
        raise InputError(f"{path}: not a readable NIfTI file ({error})") from None


def learn(folder: Path, voxels: int = TRAINING_VOXELS) -> tuple[Any, list[Percentiles]]:
    """Fit the regression of log T2w on (T1w, FLAIR).

    Args:
        folder: holds T1, FLAIR, T2 and lesion_mask, all `.nii.gz` and on the same grid.
        voxels: number of brain voxels to learn from, chosen at random.

    Returns:
        The regression, and the percentiles of the T1w and of the FLAIR in the brain.

    Raises:
        InputError: a file is missing, or scikit-learn is not installed.
    """
    try:
        from sklearn.ensemble import HistGradientBoostingRegressor
    except ModuleNotFoundError:
        raise InputError(
            "scikit-learn is not installed; this script needs it: pip install -e '.[test]'"
        ) from None
    t1, flair, t2, lesion = (
        read(folder / f"{name}.nii.gz") for name in ("T1", "FLAIR", "T2", "lesion_mask")
    )
    brain = (t1 > 0) & (flair > 0) & (t2 > 0)
    indices = np.flatnonzero(brain)
    if len(indices) < voxels:
        raise InputError(f"{folder}: {len(indices)} brain voxels, and {voxels} are needed")
    chosen = np.random.default_rng(0).choice(indices, voxels, replace=False)
    intensities = np.stack([t1.flat[chosen], flair.flat[chosen]], axis=1)
    weight = np.where(lesion.flat[chosen] > 0, LESION_WEIGHT, 1.0)
    model = HistGradientBoostingRegressor(
        loss="absolute_error", min_samples_leaf=200, random_state=0
    )
    model.fit(intensities, np.log(t2.flat[chosen]), sample_weight=weight)
    return model, [np.percentile(x[brain], PERCENTILES) for x in (t1, flair)]


def match_percentiles(
    x: Volume, healthy: Bool[np.ndarray, "x y z"], target: Percentiles
) -> Volume:
    """Map intensities so that their percentiles in healthy tissue become `target`.

    Above the last percentile the map is linear, with the mean slope of the upper half. Below the
    first percentile it is proportional.
    """
    source = np.maximum.accumulate(np.percentile(x[healthy], PERCENTILES))
    source = source + 1e-4 * np.arange(len(PERCENTILES))  # strictly increasing, for np.interp
    middle = len(source) // 2
    slope = (target[-1] - target[middle]) / (source[-1] - source[middle])
    above = target[-1] + slope * (x - source[-1])
    below = target[0] * x / max(source[0], 1e-6)
    inside = np.interp(x, source, target)
    return np.where(x > source[-1], above, np.where(x < source[0], below, inside))


def estimate_t2w(patient: Patient, model: Any, targets: list[Percentiles]) -> Volume:
    """Return the T2w-like scan of a patient, 0 outside the brain mask."""
    t1, flair, brain, lesion = (
        read(path)
        for path in (patient.t1w, patient.flair, patient.brain_mask, patient.lesion_mask)
    )
    brain, lesion = brain > 0, lesion > 0
    near_lesion = binary_dilation(lesion, iterations=LESION_MARGIN)
    healthy = brain & ~near_lesion & (t1 > 0) & (flair > 0)
    t1, flair = (
        match_percentiles(x, healthy, target)[brain]
        for x, target in zip((t1, flair), targets, strict=True)
    )
    logs = [model.predict(np.stack([t1 * a, flair * b], axis=1)) for a in JITTER for b in JITTER]
    t2w = np.zeros(brain.shape, np.float32)
    t2w[brain] = np.exp(np.mean(logs, axis=0))
    return t2w


def read_manifest(path: Path) -> list[dict[str, str]]:
    """Return the rows of a manifest CSV.

    Raises:
        InputError: the file cannot be read or lacks a column.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    missing = [name for name in COLUMNS if rows and name not in rows[0]]
    if missing or not rows:
        raise InputError(f"{path}: lacks {', '.join(missing) or 'rows'}; give a manifest CSV")
    return rows


def find_patients(flair_manifest: Path, t1w_manifest: Path, split: str) -> list[Patient]:
    """Return the patients of a split who are in both manifests, in the order of the first.

    Masks are those of the FLAIR. Relative paths start at the manifest's folder.

    Raises:
        InputError: no such patient.
    """
    t1w = {row["subject"]: row["image"] for row in read_manifest(t1w_manifest)}
    flair_folder = flair_manifest.parent
    patients = [
        Patient(
            row["subject"],
            t1w=t1w_manifest.parent / t1w[row["subject"]],
            flair=flair_folder / row["image"],
            brain_mask=(flair_folder / row["brain_mask"]).resolve(),
            lesion_mask=(flair_folder / row["lesion_mask"]).resolve(),
        )
        for row in read_manifest(flair_manifest)
        if row["split"] == split and row["subject"] in t1w
    ]
    if not patients:
        raise InputError(f"{flair_manifest}: no patient of split {split!r} is in {t1w_manifest}")
    return patients


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "paired",
        type=Path,
        help="patient to learn from: a folder with T1, T2, FLAIR and lesion_mask (.nii.gz), "
        "for example mslub/patient07",
    )
    parser.add_argument("flair", type=Path, help="manifest CSV of the FLAIR scans")
    parser.add_argument("t1w", type=Path, help="manifest CSV of the T1w scans")
    parser.add_argument("out", type=Path, help="output folder")
    parser.add_argument(
        "--split",
        default="val",
        help="patients of this split get a T2w-like scan; default: %(default)s",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write OUT/SUBJECT/T2w.nii.gz for each patient, then OUT/manifest.csv, all in split val."""
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        patients = find_patients(args.flair, args.t1w, args.split)
        model, targets = learn(args.paired)
        rows = []
        for patient in patients:
            image = Path(patient.subject) / "T2w.nii.gz"
            (args.out / image).parent.mkdir(parents=True, exist_ok=True)
            affine = nib.nifti1.load(patient.flair).affine
            t2w = estimate_t2w(patient, model, targets)
            nib.nifti1.save(nib.nifti1.Nifti1Image(t2w, affine), args.out / image)
            rows.append(
                [patient.subject, image, patient.brain_mask, patient.lesion_mask, "val", 0]
            )
        write_table(args.out / "manifest.csv", COLUMNS, rows)
    except InputError as error:
        parser.exit(2, f"error: {error}\n")
    print(args.out / "manifest.csv")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
