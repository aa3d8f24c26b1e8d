"""Small synthetic scans: a textured ellipsoid on a background of zeros."""

from pathlib import Path

import nibabel as nib
import numpy as np

from helpers.options import QUIET, UNREGISTERED
from maediff.scans.volume import Volume


def made_brain(shape=(60, 72, 50), spacing=(2.0, 2.0, 2.0), radii_mm=(50.0, 62.0, 42.0), seed=0):
    """Return (data, brain mask, affine) of a stripped scan.

    Intensities are 40 to 200 in the brain and 0 outside; the origin is the centre of the brain.
    """
    affine = np.diag([*spacing, 1.0]).astype(float)
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * np.array(spacing)
    x, y, z = np.meshgrid(
        *[
            np.arange(size) * step + start
            for size, step, start in zip(shape, spacing, affine[:3, 3], strict=True)
        ],
        indexing="ij",
    )
    brain = (x / radii_mm[0]) ** 2 + (y / radii_mm[1]) ** 2 + (z / radii_mm[2]) ** 2 <= 1
    phase = np.random.default_rng(seed).uniform(0, 6, 3)
    texture = (
        np.sin(x / 9 + phase[0])
        + np.sin(y / 11 + phase[1])
        + np.sin(z / 7 + phase[2])
        + x / 100
        + y / 80
    )
    data = np.where(brain, np.clip(120 + 25 * texture, 40, 200), 0)
    return data.astype(np.float32), brain, affine


def ball(shape, affine, centre_mm, volume_ml):
    """Return the mask of a ball."""
    grid = np.stack(np.meshgrid(*[np.arange(size) for size in shape], indexing="ij"), axis=-1)
    place = grid @ affine[:3, :3].T + affine[:3, 3]
    radius_mm = (volume_ml * 1000 * 3 / 4 / np.pi) ** (1 / 3)
    return np.linalg.norm(place - np.asarray(centre_mm), axis=-1) <= radius_mm


def made_volume(data, affine, name="scan.nii.gz"):
    """Return a Volume, as if it was read from a file `name` in RAS+."""
    return Volume(np.asarray(data, dtype=np.float32), affine, Path(name), data.shape, affine)


def dice(a, b):
    """Return the Dice coefficient of two masks."""
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def save(path: Path, data, affine, axes: str | None = None) -> Path:
    """Write a NIfTI file; `axes` is the orientation on disk, for example "LAS" or "PSR"."""
    image = nib.Nifti1Image(data.astype(np.uint8) if data.dtype == bool else data, affine)
    if axes:
        orientation = nib.orientations.axcodes2ornt(axes)
        image = image.as_reoriented(
            nib.orientations.ornt_transform(nib.io_orientation(affine), orientation)
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def oblique(affine, degrees=(8.0, -5.0, 12.0)):
    """Return the affine of the same voxels in a rotated scanner frame."""
    turn = np.eye(4)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        step = np.eye(4)
        i, j = [k for k in range(3) if k != axis]
        step[i, i] = step[j, j] = np.cos(angle)
        step[i, j], step[j, i] = -np.sin(angle), np.sin(angle)
        turn = turn @ step
    return turn @ affine


SUBJECTS = [("train", True)] * 3 + [("val", True), ("val", False), ("test", True), ("test", False)]
"""Split and health of the scans of `made_dataset`."""


def made_dataset(folder: Path) -> Path:
    """Write seven small T1-like scans with a manifest; return the manifest.

    A scan has 10 thick slices; a lesion is a bright ball. SUBJECTS lists splits and health.
    """
    lines = ["subject,image,brain_mask,lesion_mask,split,healthy"]
    for number, (split, healthy) in enumerate(SUBJECTS):
        name = f"{split}{number}"
        data, brain, affine = made_brain(shape=(60, 72, 10), spacing=(2.0, 2.0, 8.0), seed=number)
        lesion = ball(data.shape, affine, (12, -10, 5), 20) & brain
        save(
            folder / name / "image.nii.gz",
            data if healthy else np.where(lesion, 250, data).astype(np.float32),
            affine,
        )
        save(folder / name / "brain.nii.gz", brain, affine)
        save(folder / name / "lesion.nii.gz", lesion & (not healthy), affine)
        files = ",".join(f"{name}/{kind}.nii.gz" for kind in ("image", "brain", "lesion"))
        lines.append(f"{name},{files},{split},{int(healthy)}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder / "manifest.csv"


def made_cohort(folder: Path) -> Path:
    """Return the cohort of `made_dataset`."""
    from maediff.cohort.preprocess import preprocess

    assert (
        preprocess(
            [made_dataset(folder / "scans")],
            folder / "cohort",
            modality="T1w",
            preparation=UNREGISTERED,
            run=QUIET,
        )
        == 0
    )
    return folder / "cohort"


def ellipsoid(shape=(12, 20, 18), center=(6, 10, 9), radii=(5, 9, 8)):
    """Return a mask of slices with an ellipsoid; all lengths in voxels."""
    grid = np.ogrid[tuple(slice(0, n) for n in shape)]
    return sum(((g - c) / r) ** 2 for g, c, r in zip(grid, center, radii, strict=True)) <= 1
