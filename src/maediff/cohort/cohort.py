"""A cohort: prepared scans on the model's grid, with their splits.

    COHORT/cohort.json     modality, grid, settings of preprocessing, versions (written last)
           manifest.csv    a line for each scan, with the columns of `Row`
           qc.csv          a line for each scan: flags and numbers, or the reason of a failure
           <name>/         image, brain_mask, lesion_mask .nii.gz on the model's grid;
                           image.json (written last)
           cache/          slices of a split as .npy; `training_slices` rebuilds a deleted cache

Training uses all slices of a healthy scan and the lesion-free slices of a scan with a lesion
mask. It uses no slice of a scan whose health is unknown.
"""

import csv
import io
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from maediff.cohort.slices import SliceSet, read_slices, store_slices
from maediff.core.errors import InputError
from maediff.core.reading import is_file, is_folder, load_json, parse_json, read_lines
from maediff.core.text import hash_text, plain_cell
from maediff.core.types import CEILING, SPLITS
from maediff.scans.nifti import read_mask, read_nifti
from maediff.scans.reference import subject_in_dataset
from maediff.scans.volume import slice_spacing_mm, volume_to_slices

COHORT_FORMAT = 2
"""Version of the files of a cohort, in cohort.json."""
MIN_BRAIN_SHARE = 0.01
"""Smallest share of brain among the pixels of a training slice."""
REMEDY = "run `maediff preprocess` again"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One scan of a cohort: a line of manifest.csv.

    Args:
        subject: the person; a name in the dataset.
        session: empty if the subject has one scan only.
        dataset: name of the dataset.
        split: train, val or test.
        healthy: None if unknown.
        image: path of the prepared image; the cohort's folder is included.
        brain_mask: path of the brain mask.
        lesion_mask: path of the lesion mask; None if the scan has none.
        source: path of the scan that the image was made from.
    """

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
        """Name of the scan, unique in the cohort: SUBJECT or SUBJECT_SESSION."""
        return f"{self.subject}_{self.session}" if self.session else self.subject

    @property
    def person(self) -> str:
        """DATASET/SUBJECT; two scans show the same person if they have the same text."""
        return f"{self.dataset}/{subject_in_dataset(self.dataset, self.subject)}"


@dataclass(frozen=True, eq=False, kw_only=True)
class SubjectSlices:
    """The slices of one scan, lowest first.

    Args:
        name: name of the scan, unique in the cohort (`Row.name`).
        person: the person of the scan (`Row.person`).
        images: intensities in [0, CEILING]: 0 outside the brain, 1 at its 99th percentile.
        brain: brain mask.
        lesion: lesion mask; None if the scan has none.
        lesion_free: slices that may train a healthy model.
            All true for a healthy scan; all false for a scan of unknown health without a lesion
            mask.
        slice_ids: index of each slice on the model's grid.
        affine: voxel of the (x, y, z) volume -> mm; mm of MNI152 if the scan was registered.
        affine_to_scan: voxel of the same volume -> mm of the scan.
        spacing_mm: voxel size along x and y, and distance of slices.
        healthy: None if unknown.
        extra: further columns of the manifest, for example lesion_kind.
    """

    name: str
    person: str
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

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in the scan, ml; of a registered scan, mostly less than in MNI152."""
        return abs(float(np.linalg.det(self.affine_to_scan[:3, :3]))) / 1000


class Cohort:
    """A cohort on disk.

    Attributes:
        path: its folder.
        meta: content of cohort.json.
        rows: the scans, in the order of manifest.csv.
        hash: SHA-256 of cohort.json and manifest.csv.

    Example:
        >>> slices = Cohort.open(Path("cohort")).training_slices("train")  # doctest: +SKIP
    """

    def __init__(
        self, path: Path, meta: dict[str, Any], rows: list[Row], content_hash: str
    ) -> None:
        self.path, self.meta, self.rows, self.hash = path, meta, rows, content_hash

    @classmethod
    def open(cls, path: Path) -> "Cohort":
        """Return the cohort in the folder `path`.

        Raises:
            InputError: the folder is no cohort, or an unfinished one; its format is unknown; files
                are missing or damaged.
        """
        path = Path(path)
        if not is_folder(path):
            raise InputError(
                f"{path}: no such folder; make a cohort with `maediff preprocess INPUT -o {path}`"
            )
        if not (path / "cohort.json").is_file():
            raise InputError(
                f"{path}: holds no cohort.json: it is no cohort, or preprocessing did not finish; "
                "run `maediff preprocess INPUT -o COHORT`, with --resume if a run was interrupted"
            )
        try:
            settings = read_lines(path / "cohort.json")
            manifest = read_lines(path / "manifest.csv")
            meta = parse_json(settings.encode())
            lines = [
                {
                    key: plain_cell(cell) if isinstance(cell, str) else cell
                    for key, cell in line.items()
                }
                for line in csv.DictReader(io.StringIO(manifest))
            ]
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path}: cohort.json or manifest.csv cannot be read ({type(error).__name__}); "
                f"{REMEDY}"
            ) from error
        if not isinstance(meta, dict) or meta.get("format") != COHORT_FORMAT:
            version = meta.get("format") if isinstance(meta, dict) else None
            raise InputError(
                f"{path / 'cohort.json'}: cohort format {version}, but this maediff reads "
                f"{COHORT_FORMAT}; {REMEDY}, or use the version that wrote the cohort"
            )
        types = {"modality": str, "grid": dict, "normalise": dict}
        if damaged := [key for key, kind in types.items() if not isinstance(meta.get(key), kind)]:
            raise InputError(
                f"{path / 'cohort.json'}: {', '.join(damaged)} missing or damaged; {REMEDY}"
            )
        rows = [_parse_row(path, number, line) for number, line in enumerate(lines, start=2)]
        if not rows:
            raise InputError(f"{path / 'manifest.csv'}: lists no scan; {REMEDY}")
        content_hash = hash_text(f"{settings}\n{manifest}")
        return cls(path, meta, rows, content_hash)

    def split(self, name: str) -> list[Row]:
        """Return the scans of a split in the order of the manifest; empty if the split has none.

        Raises:
            InputError: unknown split.
        """
        if name not in SPLITS:
            raise InputError(f"split {name!r}: unknown; choose one of {', '.join(SPLITS)}")
        return [row for row in self.rows if row.split == name]

    def load(self, row: Row) -> SubjectSlices:
        """Return all slices of one scan.

        Raises:
            InputError: a file of the scan is missing or damaged, or does not fit the other files.
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
            record = load_json(record_path)
            lesion_free, extra = record["lesion_free"], record["extra"]
            affine_to_scan = np.array(record["grid"]["affine_to_scan"], dtype=float).reshape(4, 4)
            if not isinstance(lesion_free, list | None) or not isinstance(extra, dict):
                raise TypeError("lesion_free or extra has another type")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{record_path}: missing or damaged; {REMEDY}") from error
        if lesion_free is None or row.healthy:
            lesion_free = [row.healthy is True] * len(brain)
        if len(lesion_free) != len(brain):
            raise InputError(
                f"{record_path}: describes {len(lesion_free)} slices, but the image has "
                f"{len(brain)}; {REMEDY}"
            )
        images = np.clip(volume_to_slices(volume.data), 0, CEILING)
        x, y, z = (float(size) for size in slice_spacing_mm(volume.affine))
        return SubjectSlices(
            name=row.name,
            person=row.person,
            images=images,
            brain=brain,
            lesion=lesion,
            lesion_free=np.asarray(lesion_free, dtype=bool),
            slice_ids=np.arange(len(brain), dtype=np.int64),
            affine=volume.affine,
            affine_to_scan=affine_to_scan,
            spacing_mm=(x, y, z),
            healthy=row.healthy,
            extra=extra,
        )

    def training_slices(self, split: str) -> SliceSet:
        """Return the lesion-free slices of a split that hold enough brain.

        The slices come from the cache; a missing or damaged cache is rebuilt.

        Raises:
            InputError: the split has no such slice.
        """
        folder = self.path / "cache" / f"{split}-lesion-free-{self.hash[:16]}"
        cached = read_slices(folder)
        if cached is not None:
            return cached
        shutil.rmtree(folder, ignore_errors=True)  # damaged
        collected = self._collect_slices(split)
        stored = read_slices(folder) if store_slices(folder, collected) else None
        return stored or collected

    def _collect_slices(self, split: str) -> SliceSet:
        """Read the training slices of a split from the scans."""
        images, brains = [], []
        index: list[int] = []
        scans: list[str] = []
        for row in self.split(split):
            loaded = self.load(row)
            used = (loaded.brain.mean(axis=(1, 2)) >= MIN_BRAIN_SHARE) & loaded.lesion_free
            if used.any():
                images.append(np.round(loaded.images[used].clip(0, 1) * 255).astype(np.uint8))
                brains.append(loaded.brain[used])
                index += [len(scans)] * int(used.sum())
                scans.append(loaded.name)
        if not scans:
            raise InputError(
                f"{self.path}: no healthy subject in split {split} ({len(self.split(split))} "
                "scans); add scans with healthy=1 in the manifest, or with a lesion mask, so that "
                "their lesion-free slices can be used"
            )
        if len({stack.shape[1:] for stack in images}) > 1:
            raise InputError(f"{self.path}: the scans differ in slice size; {REMEDY}")
        return SliceSet(
            images=np.concatenate(images),
            brain=np.concatenate(brains),
            subject_index=np.asarray(index, dtype=np.int64),
            subjects=scans,
        )


def _parse_row(cohort: Path, number: int, line: Mapping[str, str]) -> Row:
    """Return line `number` of the manifest of a cohort, with paths that exist."""
    manifest = cohort / "manifest.csv"
    try:
        image, brain_mask = cohort / line["image"], cohort / line["brain_mask"]
        lesion_mask = cohort / line["lesion_mask"] if line["lesion_mask"] else None
        if not line["image"] or not line["brain_mask"] or line["split"] not in SPLITS:
            raise ValueError("incomplete")
        row = Row(
            subject=line["subject"],
            session=line["session"],
            dataset=line["dataset"],
            split=line["split"],
            healthy={"": None, "0": False, "1": True}[line["healthy"]],
            image=image,
            brain_mask=brain_mask,
            lesion_mask=lesion_mask,
            source=line["source"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{manifest}, line {number}: not a line of `maediff preprocess`; {REMEDY}"
        ) from error
    paths = [path for path in (image, brain_mask, lesion_mask) if path is not None]
    if missing := [str(path) for path in paths if not is_file(path)]:
        raise InputError(f"{cohort}: {', '.join(missing)} is missing; {REMEDY}")
    return row
