"""Datasets of synthetic brains: healthy scans for training, healthy and lesioned ones for scores.

`MIX` fixes the content of the standard dataset: lesions, counts and seed.
Subject i of a split comes from SeedSequence((seed, lesioned or not, split, i)).
It depends neither on the order nor on the number of the other subjects.
"""

from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float, Shaped
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from maediff.core.files import atomic_path, fresh_folder, write_table
from maediff.core.processes.lock import hold_locks
from maediff.core.progress import Progress
from maediff.core.types import SPLITS, Modality, Split
from maediff.synthetic.brain import Phantom, PhantomConfig, healthy_brain
from maediff.synthetic.lesion import LesionKind, LesionSize, add_lesion


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Mix:
    """Content of a dataset of synthetic brains.

    Args:
        n_train: healthy subjects of train.
        n_val: lesioned subjects of val.
        n_test: lesioned subjects of test.
        n_healthy_val: healthy subjects of val.
        n_healthy_test: healthy subjects of test.
        seed: seed of the dataset.
        lesions: kind and size of the lesions; subjects use them in turn.
    """

    n_train: int = 200
    n_val: int = 16
    n_test: int = 32
    n_healthy_val: int = 8
    n_healthy_test: int = 8
    seed: int = 20240119
    lesions: tuple[tuple[LesionKind, LesionSize], ...] = (
        ("bright", "large"),
        ("dark", "small"),
        ("texture", "large"),
        ("mass_effect", "small"),
        ("bright", "small"),
        ("dark", "large"),
        ("texture", "small"),
        ("mass_effect", "large"),
    )


MIX = Mix()
"""Standard dataset of reported results: a quarter of each kind, half of each size.

The values were fixed before the first training.
"""

PHANTOM_COLUMNS = (
    "subject",
    "image",
    "brain_mask",
    "lesion_mask",
    "split",
    "healthy",
    "lesion_kind",
    "lesion_size",
)


def healthy_subject(
    split: Split, index: int, contrast: Modality = "T1w", seed: int = MIX.seed
) -> Phantom:
    """Return a healthy subject of a split.

    Args:
        split: train, val or test.
        index: number of the subject in its split, from 0.
        contrast: T1w, T2w or FLAIR.
        seed: seed of the dataset.
    """
    return healthy_brain((seed, 0, SPLITS.index(split), index), PhantomConfig(contrast=contrast))


def lesioned_subject(
    split: Split, index: int, contrast: Modality = "T1w", seed: int = MIX.seed
) -> tuple[Phantom, Phantom]:
    """Return a lesioned subject of a split, without and with its lesion.

    Args:
        split: train, val or test.
        index: number of the subject in its split, from 0.
        contrast: T1w, T2w or FLAIR.
        seed: seed of the dataset.
    """
    entropy = (seed, 1, SPLITS.index(split), index)
    kind, size = MIX.lesions[index % len(MIX.lesions)]
    healthy = healthy_brain(entropy, PhantomConfig(contrast=contrast))
    return healthy, add_lesion(healthy, kind, size, entropy)


@hold_locks()
def make_phantom_dataset(
    out: Path,
    *,
    contrast: Modality = "T1w",
    n_train: int = MIX.n_train,
    n_val: int = MIX.n_val,
    n_test: int = MIX.n_test,
    n_healthy_val: int = MIX.n_healthy_val,
    n_healthy_test: int = MIX.n_healthy_test,
    seed: int = MIX.seed,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write skull-stripped NIfTI scans with masks; a brain takes about 0.4 s.

    Args:
        out: folder of the dataset.
        contrast: T1w, T2w or FLAIR.
        n_train: healthy subjects of train.
        n_val: lesioned subjects of val; their lesions are those of `MIX.lesions`, in turn.
        n_test: lesioned subjects of test.
        n_healthy_val: healthy subjects of val.
        n_healthy_test: healthy subjects of test.
        seed: seed of the dataset.
        overwrite: empty an existing folder first.
        progress: advances by one for each brain.

    Returns:
        Path of the manifest CSV; the paths in it are relative to its folder.

    Raises:
        InputError: `out` exists and is not empty, or cannot be written to.

    Example:
        >>> make_phantom_dataset(Path("phantoms"), n_train=2, n_val=0)  # doctest: +SKIP
    """
    fresh_folder(out, overwrite=overwrite)
    rows: list[dict[str, str]] = []
    healthy = {"train": n_train, "val": n_healthy_val, "test": n_healthy_test}
    lesioned = {"train": 0, "val": n_val, "test": n_test}
    for split in SPLITS:
        for i in range(healthy[split] + lesioned[split]):
            if i < healthy[split]:
                phantom, kind, number = healthy_subject(split, i, contrast, seed), "healthy", i
            else:
                number = i - healthy[split]
                _, phantom = lesioned_subject(split, number, contrast, seed)
                kind = str(phantom.lesion_kind).replace("_", "")
            rows.append(_write_subject(out, f"{split}-{kind}-{number:03d}", split, phantom))
            if progress is not None:
                progress.advance(rows[-1]["subject"], detail=True)
    write_table(
        out / "manifest.csv",
        PHANTOM_COLUMNS,
        [[row.get(name, "") for name in PHANTOM_COLUMNS] for row in rows],
    )
    return out / "manifest.csv"


def _write_subject(out: Path, subject: str, split: str, phantom: Phantom) -> dict[str, str]:
    """Write the files of one subject and return its line of the manifest."""
    row = {
        "subject": subject,
        "split": split,
        "healthy": "0" if phantom.lesion_kind else "1",
        "lesion_mask": "",
        "lesion_kind": phantom.lesion_kind or "",
        "lesion_size": phantom.lesion_size or "",
    }
    volumes = {"image": phantom.image, "brain_mask": phantom.brain.astype(np.uint8)}
    if phantom.lesion is not None:
        volumes["lesion_mask"] = phantom.lesion.astype(np.uint8)
    for name, volume in volumes.items():
        write_volume(out / subject / f"{name}.nii.gz", volume, phantom.affine)
        row[name] = f"{subject}/{name}.nii.gz"
    return row


def write_volume(
    path: Path, volume: Shaped[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"]
) -> None:
    """Write a volume of a synthetic brain as NIfTI.

    Args:
        path: the file, .nii.gz.
        volume: image or mask.
        affine: voxels -> mm in RAS+.
    """
    image = nib.Nifti1Image(volume, affine)
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary:
        nib.save(image, temporary)
