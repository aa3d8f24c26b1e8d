"""Data sets of synthetic brains: healthy ones to train on, healthy and lesioned ones to choose and to score on.

MIX     what a data set holds: kinds and sizes of lesions in turn, counts, the seed; written before any training
subject i of a split is drawn from SeedSequence((seed, lesioned or not, split, i)): it is the same whatever the
order and the number of the others
"""

from pathlib import Path

import nibabel as nib
import numpy as np
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from maediff.core.files import atomic_path, fresh_folder, write_table
from maediff.core.types import SPLITS, Modality, Split
from maediff.synthetic.brain import Phantom, PhantomConfig, healthy_brain
from maediff.synthetic.lesion import LesionKind, LesionSize, add_lesion


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Mix:
    """What a phantom data set holds. Lesioned subjects take the pairs of `lesions` in turn."""

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
"""The mix that results are reported on, frozen before the first training: a quarter of each kind, half of each size."""

COLUMNS = (
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
    """The `index`-th healthy subject of a split."""
    return healthy_brain((seed, 0, SPLITS.index(split), index), PhantomConfig(contrast=contrast))


def lesioned_subject(
    split: Split, index: int, contrast: Modality = "T1w", seed: int = MIX.seed
) -> tuple[Phantom, Phantom]:
    """The `index`-th lesioned subject of a split: as it would be without its lesion, and as it is."""
    entropy = (seed, 1, SPLITS.index(split), index)
    kind, size = MIX.lesions[index % len(MIX.lesions)]
    healthy = healthy_brain(entropy, PhantomConfig(contrast=contrast))
    return healthy, add_lesion(healthy, kind, size, entropy)


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
) -> Path:
    """Write skull-stripped NIfTI scans with masks into `out`; returns the path of their manifest CSV.

    About 0.4 s a brain. Paths in the manifest are relative to it.

    The train split holds `n_train` healthy subjects; val and test hold `n_val` and `n_test` lesioned ones, in turn as
    in `MIX.lesions`, and `n_healthy_val` and `n_healthy_test` healthy ones on top.

    Raises:
        InputError: `out` exists and is not empty, or cannot be written.
    """
    fresh_folder(out, overwrite=overwrite)
    rows: list[dict[str, str]] = []
    healthy = {"train": n_train, "val": n_healthy_val, "test": n_healthy_test}
    lesioned = {"train": 0, "val": n_val, "test": n_test}
    for split in SPLITS:
        for i in range(healthy[split]):
            rows.append(
                _write(
                    out,
                    f"{split}-healthy-{i:03d}",
                    split,
                    healthy_subject(split, i, contrast, seed),
                )
            )
        for i in range(lesioned[split]):
            _, phantom = lesioned_subject(split, i, contrast, seed)
            kind = str(phantom.lesion_kind).replace("_", "")
            rows.append(_write(out, f"{split}-{kind}-{i:03d}", split, phantom))
    write_table(
        out / "manifest.csv", COLUMNS, [[row.get(name, "") for name in COLUMNS] for row in rows]
    )
    return out / "manifest.csv"


def _write(out: Path, subject: str, split: str, phantom: Phantom) -> dict[str, str]:
    """Write one subject's files; returns its row of the manifest."""
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
        image = nib.Nifti1Image(volume, phantom.affine)
        image.header.set_xyzt_units("mm")
        with atomic_path(out / subject / f"{name}.nii.gz") as temporary:
            nib.save(image, temporary)
        row[name] = f"{subject}/{name}.nii.gz"
    return row
