"""A cohort: preprocessed scans on the model's grid, with their splits, read at memory speed.

    COHORT/cohort.json     modality, grid, every choice of preprocessing, versions (written last: none, no cohort)
           manifest.csv    subject,session,dataset,split,healthy,image,brain_mask,lesion_mask,source
           qc.csv          numbers per scan, and what failed
           <name>/         image, brain_mask, lesion_mask .nii.gz on the model's grid; image.json (written last)
           cache/          slices of a split as .npy; can be deleted, is rebuilt

Which slices train: all of a healthy subject's, the lesion-free ones of a subject with a lesion mask, none of others.
"""

import csv
import hashlib
import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from maediff.cohort.slices import SliceSet, read_slices, store_slices
from maediff.core.errors import InputError
from maediff.core.types import CEILING, SPLITS
from maediff.scans.nifti import read_mask, read_nifti
from maediff.scans.volume import volume_to_slices

FORMAT = 2
MIN_BRAIN_SHARE = 0.01  # of a training slice's pixels


@dataclass(frozen=True)
class Row:
    """One scan of a cohort; paths are ready to open. `healthy` None: unknown. `source`: the scan it was made from."""

    subject: str
    session: str
    dataset: str
    split: str
    healthy: bool | None
    image: Path
    brain_mask: Path
    lesion_mask: Path | None
    source: str

    @property
    def name(self) -> str:
        """subject, or subject_session: unique in the cohort."""
        return f"{self.subject}_{self.session}" if self.session else self.subject


@dataclass(frozen=True, eq=False)
class SubjectSlices:
    """The slices of one scan, lowest first.

    Args:
        subject: the row's name, unique in the cohort.
        images: 0 outside the brain, 1 at the 99th percentile of it, clipped at CEILING.
        lesion_free: fit for training as healthy; all true for a healthy scan, all false if that is unknown.
        slice_ids: index on the model's grid.
        affine: voxel of the (x, y, z) volume -> mm; of MNI152 where the scan was registered.
        affine_to_scan: voxel of the same volume -> mm of the scan.
        extra: the manifest's further columns (lesion_kind, ...).
    """

    subject: str
    images: Float32[np.ndarray, "n h w"]
    brain: Bool[np.ndarray, "n h w"]
    lesion: Bool[np.ndarray, "n h w"] | None
    lesion_free: Bool[np.ndarray, " n"]
    slice_ids: Int64[np.ndarray, " n"]
    affine: np.ndarray
    affine_to_scan: np.ndarray
    spacing_mm: tuple[float, float, float]
    healthy: bool | None
    extra: dict[str, str]


class Cohort:
    """A preprocessed cohort: `meta` (cohort.json), `rows` (manifest.csv), and the slices."""

    def __init__(
        self, path: Path, meta: dict[str, Any], rows: list[Row], content_hash: str
    ) -> None:
        self.path, self.meta, self.rows, self.hash = path, meta, rows, content_hash

    @classmethod
    def open(cls, path: Path) -> "Cohort":
        """The cohort in folder `path`.

        Raises:
            InputError: not a cohort, an unfinished one, of an unknown format, or with files missing.
        """
        path = Path(path)
        if not path.is_dir():
            raise InputError(
                f"{path}: no such folder; make a cohort with `maediff preprocess INPUT -o {path}`"
            )
        if not (path / "cohort.json").is_file():
            raise InputError(
                f"{path}: holds no cohort.json, so it is no cohort, or preprocessing did not finish; run "
                "`maediff preprocess` on your scans, with --resume if it was stopped"
            )
        try:
            texts = [
                (path / name).read_text(encoding="utf-8")
                for name in ("cohort.json", "manifest.csv")
            ]
            meta, table = json.loads(texts[0]), list(csv.DictReader(io.StringIO(texts[1])))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path}: cohort.json or manifest.csv cannot be read ({type(error).__name__}); run "
                "`maediff preprocess` again"
            ) from error
        if not isinstance(meta, dict) or meta.get("format") != FORMAT:
            found = meta.get("format") if isinstance(meta, dict) else None
            raise InputError(
                f"{path / 'cohort.json'}: cohort format {found}, this version reads {FORMAT}; "
                "run `maediff preprocess` again, or use the maediff version that wrote it"
            )
        kinds = {"modality": str, "grid": dict, "normalise": dict}
        if damaged := [key for key, kind in kinds.items() if not isinstance(meta.get(key), kind)]:
            raise InputError(
                f"{path / 'cohort.json'}: {', '.join(damaged)} missing or damaged; run `maediff preprocess` again"
            )
        rows = [_row(path, number, line) for number, line in enumerate(table, start=2)]
        if not rows:
            raise InputError(
                f"{path / 'manifest.csv'}: lists no scan; run `maediff preprocess` again"
            )
        return cls(path, meta, rows, hashlib.sha256("\n".join(texts).encode()).hexdigest())

    def split(self, name: str) -> list[Row]:
        """The scans of a split, in the manifest's order; an empty list if there are none."""
        if name not in SPLITS:
            raise InputError(f"split {name!r}: choose one of {', '.join(SPLITS)}")
        return [row for row in self.rows if row.split == name]

    def load(self, row: Row) -> SubjectSlices:
        """Every slice of one scan.

        Raises:
            InputError: a file of the scan is missing, damaged or does not fit the others.
        """
        volume = read_nifti(row.image)
        brain = volume_to_slices(read_mask(row.brain_mask, volume, allow_empty=False))
        lesion = (
            None
            if row.lesion_mask is None
            else volume_to_slices(read_mask(row.lesion_mask, volume))
        )
        record_path = row.image.with_name("image.json")
        try:
            record = json.loads(record_path.read_text(encoding="utf-8"))
            free, extra = record["lesion_free"], record["extra"]
            affine_to_scan = np.array(record["grid"]["affine_to_scan"], dtype=float).reshape(4, 4)
            if not isinstance(free, list | None) or not isinstance(extra, dict):
                raise TypeError("not as they are written")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{record_path}: missing or damaged; run `maediff preprocess` again"
            ) from error
        if free is None or row.healthy:
            free = [row.healthy is True] * len(brain)
        if len(free) != len(brain):
            raise InputError(
                f"{record_path}: tells of {len(free)} slices, the image has {len(brain)}; run "
                "`maediff preprocess` again"
            )
        images = np.clip(volume_to_slices(volume.data), 0, CEILING)
        x, y, z = (float(size) for size in volume.spacing_mm)
        return SubjectSlices(
            row.name,
            images,
            brain,
            lesion,
            np.asarray(free, dtype=bool),
            np.arange(len(brain), dtype=np.int64),
            volume.affine,
            affine_to_scan,
            (x, y, z),
            row.healthy,
            extra,
        )

    def training_slices(self, split: str) -> SliceSet:
        """The slices of a split that hold brain and can pass for healthy, from the cache or put there.

        Raises:
            InputError: the split has none.
        """
        folder = self.path / "cache" / f"{split}-lesion-free-{self.hash[:16]}"
        arrays = read_slices(folder)
        if arrays is None:
            if folder.exists():  # damaged
                shutil.rmtree(folder, ignore_errors=True)
            collected = self._collect(split)
            arrays = (
                read_slices(folder) if store_slices(folder, collected) else None
            ) or collected
        return arrays

    def _collect(self, split: str) -> SliceSet:
        images, brains = [], []
        index: list[int] = []
        subjects: list[str] = []
        for row in self.split(split):
            loaded = self.load(row)
            wanted = (loaded.brain.mean(axis=(1, 2)) >= MIN_BRAIN_SHARE) & loaded.lesion_free
            if wanted.any():
                images.append(np.round(loaded.images[wanted].clip(0, 1) * 255).astype(np.uint8))
                brains.append(loaded.brain[wanted])
                index += [len(subjects)] * int(wanted.sum())
                subjects.append(loaded.subject)
        if not subjects:
            raise InputError(
                f"{self.path}: no healthy subject in split {split} (it has "
                f"{len(self.split(split))} scans); add scans with healthy=1, or with a lesion_mask, "
                "whose lesion-free slices then count"
            )
        if len({stack.shape[1:] for stack in images}) > 1:
            raise InputError(
                f"{self.path}: its scans differ in slice size; run `maediff preprocess` again"
            )
        return SliceSet(
            np.concatenate(images),
            np.concatenate(brains),
            np.asarray(index, dtype=np.int64),
            subjects,
        )


def _row(cohort: Path, number: int, line: Mapping[str, str]) -> Row:
    try:
        paths = [
            cohort / line[key] if line[key] else None
            for key in ("image", "brain_mask", "lesion_mask")
        ]
        healthy = {"": None, "0": False, "1": True}[line["healthy"]]
        image, brain, lesion = paths
        if image is None or brain is None or line["split"] not in SPLITS:
            raise ValueError("incomplete")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{cohort / 'manifest.csv'}, line {number}: not as `maediff preprocess` writes it; run it again"
        ) from error
    missing = [str(path) for path in paths if path is not None and not path.is_file()]
    if missing:
        raise InputError(
            f"{cohort}: {', '.join(missing)} is missing; run `maediff preprocess` again"
        )
    return Row(
        line["subject"],
        line["session"],
        line["dataset"],
        line["split"],
        healthy,
        image,
        brain,
        lesion,
        line["source"],
    )
