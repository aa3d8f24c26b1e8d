"""Draw T2w-like scans of patients from their T1w and FLAIR, for want of real T2w scans with tumours: never to train on.

python experiments/make_pseudo_t2.py PAIRED MANIFEST_FLAIR MANIFEST_T1W OUT [--split val]

The relation of the three contrasts is learnt, voxel by voxel, from one patient of whom all three were taken (PAIRED: a
folder with T1, T2, FLAIR and lesion_mask.nii.gz, as mslub/patient07): gradient boosting (scikit-learn) of the
logarithm of T2w, absolute error, voxels of its lesions counted 50 times because they are few. A patient's intensities
are brought onto that patient's by percentiles of what is no lesion. Anatomy, lesions, resolution and masks stay real;
contrast is an estimate: fluid and oedema come out bright, but of blood, iron and calcification nothing is known.
"""

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy.ndimage import binary_dilation
from sklearn.ensemble import HistGradientBoostingRegressor

PERCENTILES = np.linspace(0.5, 99.5, 100)
JITTER = (
    0.95,
    1.0,
    1.05,
)  # the steps of trees are averaged away over small changes of both intensities
LESION_WEIGHT, VOXELS, MARGIN = 50.0, 300_000, 3


def read(path: Path) -> Float[np.ndarray, "x y z"]:
    """Intensities of a scan."""
    return np.asarray(nib.nifti1.load(path).dataobj, dtype=np.float32)


def learn(folder: Path) -> tuple[HistGradientBoostingRegressor, list[Float[np.ndarray, " p"]]]:
    """The regression of log T2w on (T1w, FLAIR), and the percentiles of these two."""
    t1, flair, t2, lesion = (
        read(folder / f"{name}.nii.gz") for name in ("T1", "FLAIR", "T2", "lesion_mask")
    )
    brain = (t1 > 0) & (flair > 0) & (t2 > 0)
    chosen = np.random.default_rng(0).choice(np.flatnonzero(brain), VOXELS, replace=False)
    given = np.stack([t1.flat[chosen], flair.flat[chosen]], axis=1)
    weight = np.where(lesion.flat[chosen] > 0, LESION_WEIGHT, 1.0)
    model = HistGradientBoostingRegressor(
        loss="absolute_error", min_samples_leaf=200, random_state=0
    )
    model.fit(given, np.log(t2.flat[chosen]), sample_weight=weight)
    return model, [np.percentile(x[brain], PERCENTILES) for x in (t1, flair)]


def onto(
    x: Float[np.ndarray, "x y z"],
    healthy: Bool[np.ndarray, "x y z"],
    target: Float[np.ndarray, " p"],
) -> Float[np.ndarray, "x y z"]:
    """Intensities whose percentiles in healthy tissue are the target's; beyond the last one, straight on."""
    own = np.maximum.accumulate(np.percentile(x[healthy], PERCENTILES)) + 1e-4 * np.arange(
        len(PERCENTILES)
    )
    middle = len(own) // 2
    beyond = target[-1] + (target[-1] - target[middle]) / (own[-1] - own[middle]) * (x - own[-1])
    below = target[0] * x / max(own[0], 1e-6)
    return np.where(x > own[-1], beyond, np.where(x < own[0], below, np.interp(x, own, target)))


def main() -> None:
    """Write OUT/SUBJECT/T2w.nii.gz and OUT/manifest.csv, all of one split."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paired", type=Path)
    parser.add_argument("flair", type=Path)
    parser.add_argument("t1w", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", default="val")
    args = parser.parse_args()
    model, targets = learn(args.paired)
    both = pd.read_csv(args.flair).merge(
        pd.read_csv(args.t1w)[["subject", "image"]], on="subject", suffixes=("", "_t1")
    )
    rows = []
    for row in both[both.split == args.split].itertuples():
        paths = [args.t1w.parent / row.image_t1, args.flair.parent / row.image]
        masks = [
            (args.flair.parent / name).resolve() for name in (row.brain_mask, row.lesion_mask)
        ]
        t1, flair, brain, lesion = (read(path) for path in (*paths, *masks))
        brain, lesion = brain > 0, lesion > 0
        healthy = brain & ~binary_dilation(lesion, iterations=MARGIN) & (t1 > 0) & (flair > 0)
        given = [
            onto(x, healthy, target)[brain] for x, target in zip((t1, flair), targets, strict=True)
        ]
        logs = [
            model.predict(np.stack([given[0] * a, given[1] * b], axis=1))
            for a in JITTER
            for b in JITTER
        ]
        drawn = np.zeros(flair.shape, np.float32)
        drawn[brain] = np.exp(np.mean(logs, axis=0))
        image = Path(row.subject) / "T2w.nii.gz"
        (args.out / image).parent.mkdir(parents=True, exist_ok=True)
        nib.nifti1.save(
            nib.nifti1.Nifti1Image(drawn, nib.nifti1.load(paths[1]).affine), args.out / image
        )
        rows.append([row.subject, image, *masks, "val", 0])
    columns = ["subject", "image", "brain_mask", "lesion_mask", "split", "healthy"]
    pd.DataFrame(rows, columns=columns).to_csv(args.out / "manifest.csv", index=False)
    print(args.out / "manifest.csv")


if __name__ == "__main__":
    main()
