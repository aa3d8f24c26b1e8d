"""Rates of flagged scans: healthy scans, and the same scans damaged on purpose.

    python experiments/quality/measure_flags.py healthy --data DATA --cache CACHE --out OUT.csv
    python experiments/quality/measure_flags.py damaged --data DATA --cache CACHE --out OUT.csv
    python experiments/quality/measure_flags.py table --out OUT.csv       rates of a CSV file

A scan is prepared once: its brain mask and its alignment are kept in CACHE. Damage is done to the
scan on its own grid, then quality control measures it with the kept mask and alignment. Brain
extraction and registration of damaged scans would only add flags.
Rows that OUT.csv already has are skipped.

    noise            Rician noise: |v + n1 + i n2|, n ~ N(0, share x 99th percentile of the brain)
    ghosts           every 2nd to 4th line of k-space along y is scaled: copies of the head
    motion           lines of k-space along y come from heads in several positions
    half a brain     the mask of one half of the brain, as a failed extraction leaves it
    vertex layer     CSF and skull in the brain mask: a layer over the upper quarter of the brain
    vertex to skin   CSF, skull and scalp in the brain mask: a column at the vertex, up to the air
    contrast agent   brightness that contrast agent adds in the T1w of mslub, at the same place of
                     MNI152; "scanned" is the T1w with contrast agent of mslub itself

Motion follows Shaw et al. 2019 (https://proceedings.mlr.press/v102/shaw19a.html): rigid motion at
random times of the acquisition, which fills k-space line by line.
"""

import argparse
import csv
import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from maediff.models.model import read_model
from maediff.preparation.config import PreparationConfig
from maediff.preparation.onto_grid import prepare_scan
from maediff.preparation.prepare import prepare
from maediff.preparation.quality import (
    check_against_atlas,
    check_air,
    check_contrast,
    check_head,
    check_image,
    check_outline,
    shows_skull,
)
from maediff.preparation.quality.mask import HEAD_LEVEL
from maediff.preparation.registration import Alignment
from maediff.preparation.resample import resample
from maediff.preparation.steps import Tools
from maediff.scans.nifti import read_nifti
from maediff.scans.volume import Volume, slice_spacing_mm

NUMBERS = (
    "noise",
    "air_signal",
    "vertex_ml",
    "bright_ml",
    "head_share",
    "scalp_ml",
    "bright_share",
    "brain_ml",
)
COLUMNS = ("group", "scan", "damage", "codes", *NUMBERS, "cpu_s")
PHASE_AXIS = 1  # front to back, as in most axial and sagittal protocols
UNTURNED = -0.3  # the alignment is that of the undamaged scan, which is upright
GROUPS: dict[str, tuple[str, str, str]] = {
    "ds002748 T1w": ("ds002748", "sub-*/anat/*_T1w.nii.gz", "T1w"),
    "ds000011 T1w": ("ds000011", "sub-*/anat/*_T1w.nii.gz", "T1w"),
    "ixi10 T1w": ("ixi10", "*.nii.gz", "T1w"),
    "wmh T1w": ("wmh", "Subj*/T1w.nii.gz", "T1w"),
    "ds000011 T2w": ("ds000011", "sub-*/anat/*_inplaneT2.nii.gz", "T2w"),
    "wmh FLAIR": ("wmh", "Subj*/FLAIR.nii.gz", "FLAIR"),
    "lgg T1w (patients)": ("lgg", "TCGA*/T1w.nii.gz", "T1w"),
    "lgg FLAIR (patients)": ("lgg", "TCGA*/FLAIR.nii.gz", "FLAIR"),
    "mslub T1w (patient)": ("mslub", "patient07/T1.nii.gz", "T1w"),
    "mslub T2w (patient)": ("mslub", "patient07/T2.nii.gz", "T2w"),
    "mslub FLAIR (patient)": ("mslub", "patient07/FLAIR.nii.gz", "FLAIR"),
    "mslub contrast agent": ("mslub", "patient07/T1POST.nii.gz", "T1w"),
}
"""Folder, pattern and contrast of each group."""
AGENT = "mslub contrast agent"
MIN_ENHANCEMENT = 0.15
"""Smaller differences between the two T1w of mslub are noise."""
MODELS = {"T1w": "t1", "T2w": "t2", "FLAIR": "flair"}


@dataclass(frozen=True, eq=False)
class Clean:
    """An undamaged scan, with its brain mask and alignment."""

    volume: Volume
    brain: np.ndarray
    to_atlas: np.ndarray
    stripped: bool
    enhancement: Any = None


def add_noise(volume: Volume, brain: np.ndarray, share: float, rng: np.random.Generator) -> Volume:
    """Return the scan with Rician noise.

    Args:
        volume: the scan.
        brain: its brain mask.
        share: standard deviation of the noise, as a share of the brain's 99th percentile.
        rng: source of the noise.
    """
    sd = share * float(np.percentile(volume.data[brain], 99))
    noise = rng.normal(0, sd, (2, *volume.data.shape)).astype(np.float32)
    return replace(volume, data=np.hypot(volume.data + noise[0], noise[1]).astype(np.float32))


def add_ghosts(volume: Volume, strength: float, period: int, axis: int = PHASE_AXIS) -> Volume:
    """Return the scan with copies of the head along one axis.

    Args:
        volume: the scan.
        strength: 0 to 1; every `period`-th line of k-space is multiplied by 1 - strength.
        period: the copies are 1 / period of the field of view apart.
        axis: axis of the copies.
    """
    lines = np.fft.fft(volume.data, axis=axis)
    size = volume.data.shape[axis]
    scale = np.ones(size)
    scale[::period] = 1 - strength
    centre = max(1, size // 50)  # the lowest frequencies are spared, or brightness would change
    scale[:centre] = scale[-centre + 1 or None :] = 1
    shape = [1, 1, 1]
    shape[axis] = size
    image = np.abs(np.fft.ifft(lines * scale.reshape(shape), axis=axis))
    return replace(volume, data=image.astype(np.float32))


def add_motion(
    volume: Volume,
    degrees: float,
    shift_mm: float,
    events: int,
    rng: np.random.Generator,
    axis: int = PHASE_AXIS,
) -> Volume:
    """Return the scan of a head that moved `events` times.

    Args:
        volume: the scan.
        degrees: standard deviation of the rotation about each axis at each event.
        shift_mm: standard deviation of the shift along each axis at each event.
        events: number of movements, at random times.
        rng: source of times and positions.
        axis: phase-encoding axis, whose lines are acquired one after another.
    """
    size = volume.data.shape[axis]
    starts = np.sort(rng.integers(1, size, events)).tolist()
    spectrum = np.fft.fftshift(np.fft.fft(volume.data, axis=axis), axes=axis)
    middle = size // 2
    segments = list(zip([0, *starts], [*starts, size], strict=True))
    for low, high in segments:
        if low <= middle < high:
            continue  # the position of the centre of k-space is the reference position
        moved = _move(volume, rng.normal(0, degrees, 3), rng.normal(0, shift_mm, 3))
        other = np.fft.fftshift(np.fft.fft(moved, axis=axis), axes=axis)
        part = [slice(None)] * 3
        part[axis] = slice(low, high)
        spectrum[tuple(part)] = other[tuple(part)]
    image = np.abs(np.fft.ifft(np.fft.ifftshift(spectrum, axes=axis), axis=axis))
    return replace(volume, data=image.astype(np.float32))


def keep_half(brain: np.ndarray, axis: int = 0) -> np.ndarray:
    """Return the brain mask of one half of the head."""
    half = brain.copy()
    indices = np.nonzero(brain.any(axis=tuple(k for k in range(3) if k != axis)))[0]
    keep = [slice(None)] * 3
    keep[axis] = slice(int(indices.mean()), None)
    half[tuple(keep)] = False
    return half


def keep_layer(volume: Volume, brain: np.ndarray, volume_ml: float) -> np.ndarray:
    """Return the brain mask with the layers above the upper quarter of the brain.

    Args:
        volume: the scan.
        brain: its brain mask.
        volume_ml: volume of the added layers of CSF and skull.
    """
    distance = ndimage.distance_transform_edt(~brain, sampling=volume.spacing_mm)
    distance[:, :, : _find_upper_quarter(brain)] = np.inf
    distance[brain] = 0
    candidates = np.sort(distance[(distance > 0) & np.isfinite(distance)])
    count = min(round(volume_ml * 1000 / volume.voxel_mm3), len(candidates))
    return np.asarray(brain | (distance <= candidates[count - 1]))


def keep_column(volume: Volume, brain: np.ndarray, volume_ml: float) -> np.ndarray:
    """Return the brain mask with CSF, skull and scalp up to the air, in a column at the vertex.

    Args:
        volume: the scan.
        brain: its brain mask.
        volume_ml: volume of the column outside the brain.
    """
    top = _find_upper_quarter(brain)
    head = brain | (volume.data > HEAD_LEVEL * np.median(volume.data[brain]))
    labels, _ = ndimage.label(head)
    head = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
    for plane in np.moveaxis(head, 2, 0):
        plane[...] = ndimage.binary_fill_holes(ndimage.binary_closing(plane, iterations=3))
    centre = np.argwhere(brain[:, :, top:].any(axis=2)).mean(axis=0)
    x, y = np.ogrid[: brain.shape[0], : brain.shape[1]]
    sizes = volume.spacing_mm
    reach = np.hypot((x - centre[0]) * sizes[0], (y - centre[1]) * sizes[1])[:, :, None]
    reach = np.broadcast_to(reach, brain.shape)
    candidates = (head & ~brain)[:, :, top:]
    reaches = np.sort(reach[:, :, top:][candidates])
    count = min(round(volume_ml * 1000 / volume.voxel_mm3), len(reaches))
    kept = brain.copy()
    kept[:, :, top:] |= candidates & (reach[:, :, top:] <= reaches[count - 1])
    return kept


def _find_upper_quarter(brain: np.ndarray) -> int:
    """Return the lowest slice of the upper quarter of the brain."""
    heights = np.nonzero(brain.any(axis=(0, 1)))[0]
    return int(heights[0] + 0.75 * (heights[-1] - heights[0]))


def add_contrast_agent(scan: "Clean", dose: float) -> Volume:
    """Return a T1w with the brightness that contrast agent adds in the patient of mslub.

    Args:
        scan: the T1w.
        dose: 1 for the enhancement of the patient.
    """
    enhancement, to_enhancement = scan.enhancement
    matrix = to_enhancement @ scan.to_atlas @ scan.volume.affine
    added = resample(enhancement, matrix, scan.volume.data.shape, "linear")
    white = float(np.percentile(scan.volume.data[scan.brain], 75))
    data = scan.volume.data + np.where(scan.brain, dose * white * added, 0)
    return replace(scan.volume, data=data.astype(np.float32))


@lru_cache(maxsize=1)
def read_enhancement(folder: Path, cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the enhancement of mslub, and the matrix from mm of MNI152 to its voxels.

    The enhancement is the difference of the T1w with and without contrast agent, as a share of
    white matter (75th percentile of the brain).
    """
    with_agent = read_clean(folder / "T1POST.nii.gz", "T1w", cache, "mslub-T1POST")
    without = read_nifti(folder / "T1.nii.gz").data
    brain = with_agent.brain & (without > 0)
    data = with_agent.volume.data * np.median(without[brain])
    data = data / np.median(with_agent.volume.data[brain])
    added = (data - without) / np.percentile(without[brain], 75)
    added = np.where(brain & (added > MIN_ENHANCEMENT), added, 0).astype(np.float32)
    to_voxels = np.linalg.inv(with_agent.to_atlas @ with_agent.volume.affine)
    return added, to_voxels


def _move(volume: Volume, degrees: np.ndarray, shift_mm: np.ndarray) -> np.ndarray:
    """Return the data of a head that was rotated about the centre of the field and shifted."""
    turn = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        i, j = [k for k in range(3) if k != axis]
        step = np.eye(3)
        step[i, i] = step[j, j] = np.cos(angle)
        step[i, j], step[j, i] = -np.sin(angle), np.sin(angle)
        turn = turn @ step
    spacing = volume.spacing_mm
    matrix = np.diag(1 / spacing) @ turn @ np.diag(spacing)
    centre = (np.array(volume.data.shape) - 1) / 2
    offset = centre - matrix @ centre + shift_mm / spacing
    return np.asarray(ndimage.affine_transform(volume.data, matrix, offset, order=1))


Damage = Callable[[Clean, np.random.Generator], tuple[Volume, np.ndarray]]


def _damage_image(change: Callable[..., Volume]) -> Damage:
    """Return the damage that changes the image, and not the mask."""
    return lambda scan, rng: (change(scan, rng), scan.brain)


DAMAGES: dict[str, Damage] = {
    **{
        f"noise {percent} %": _damage_image(
            lambda scan, rng, share=percent / 100: add_noise(scan.volume, scan.brain, share, rng)
        )
        for percent in (20, 10)
    },
    **{
        f"ghosts {percent} %": _damage_image(
            lambda scan, rng, share=percent / 100: add_ghosts(
                scan.volume, share, int(rng.integers(2, 5))
            )
        )
        for percent in (70, 40)
    },
    **{
        f"motion {degrees} degrees and mm, {events} times": _damage_image(
            lambda scan, rng, size=degrees, n=events: add_motion(scan.volume, size, size, n, rng)
        )
        for degrees, events in ((6, 12), (3, 6))
    },
    "half a brain": lambda scan, _: (scan.volume, keep_half(scan.brain)),
    **{
        f"vertex {name} {ml} ml": (
            lambda scan, _, keep=keep, volume_ml=ml: (
                scan.volume,
                keep(scan.volume, scan.brain, volume_ml),
            )
        )
        for name, keep, ml in (
            ("to skin", keep_column, 20),
            ("to skin", keep_column, 40),
            ("layer", keep_layer, 40),
            ("layer", keep_layer, 80),
        )
    },
    **{
        f"contrast agent, {name}": _damage_image(
            lambda scan, _, dose=dose: add_contrast_agent(scan, dose)
        )
        for name, dose in (("simulated", 1.0), ("half of it", 0.5))
    },
}
"""Damage by name."""
WRONG = {"T1w": ("T2w", "FLAIR"), "T2w": ("T1w", "FLAIR"), "FLAIR": ("T1w", "T2w")}
"""Wrong contrasts that each contrast is given as."""


def read_clean(path: Path, modality: str, cache: Path, name: str) -> Clean:
    """Return a scan with its mask and alignment, from the cache if it holds them.

    The brain of a T2w or FLAIR is that of the session's T1w, from the cache if it holds it.
    """
    volume, stored = read_nifti(path), cache / f"{name}.npz"
    if not stored.is_file():
        preparation = read_preparation(modality)
        t1 = next(iter(sorted(path.parent.glob("*T1w.nii.gz"))), None)
        t1_mask = cache / f"{name.replace(modality, 'T1w', 1)}.npz"
        tools = None
        if modality != "T1w" and t1_mask.is_file():
            tools = Tools(extract_brain=lambda *_: (_load(t1_mask)[0], "deepbet"))
        steps = prepare(
            volume, preparation, t1=None if modality == "T1w" else t1, tools=tools
        ).on_scan
        cache.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            stored,
            brain=np.packbits(steps.brain),
            shape=steps.brain.shape,
            to_atlas=steps.to_atlas,
        )
    brain, to_atlas = _load(stored)
    return Clean(volume, brain, to_atlas, not shows_skull(volume, brain))


def _load(stored: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the brain mask and the alignment in a file of the cache."""
    with np.load(stored) as arrays:
        count = int(np.prod(arrays["shape"]))
        brain = np.unpackbits(arrays["brain"], count=count).reshape(arrays["shape"])
        return brain.astype(bool), arrays["to_atlas"]


def measure(clean: Clean, volume: Volume, brain: np.ndarray, modality: str) -> dict[str, Any]:
    """Return codes and numbers of quality control, and its processor time."""
    preparation: PreparationConfig = read_preparation(modality)
    config = preparation.qc
    if clean.stripped:
        volume = replace(volume, data=np.where(brain, volume.data, 0).astype(np.float32))
    on_grid = prepare_scan(
        volume, brain, None, preparation.grid, preparation.normalise, to_atlas=clean.to_atlas
    )
    started = time.process_time()
    spacing_mm = slice_spacing_mm(on_grid.grid.affine)
    findings = [
        check_image(on_grid.image, on_grid.brain, modality, config),
        check_outline(on_grid.image, on_grid.brain, spacing_mm, modality, config),
    ]
    if not clean.stripped:
        findings += [check_air(volume, brain, modality, config), check_head(volume, brain, config)]
    elapsed = time.process_time() - started
    alignment = Alignment(clean.to_atlas, UNTURNED)
    in_atlas, flags = check_against_atlas(volume, brain, alignment, config)
    flags = [*on_grid.record["flags"], *flags, *check_contrast(in_atlas, modality, config)]
    numbers = {key: value for record, _ in findings for key, value in record.items()}
    codes = {flag.code for flag in [*flags, *(each for _, new in findings for each in new)]}
    numbers["brain_ml"] = on_grid.record["brain_ml"]
    return {**numbers, "codes": " ".join(sorted(codes)), "cpu_s": round(elapsed, 3)}


@lru_cache
def read_preparation(modality: str) -> PreparationConfig:
    """Return the preparation of the shipped model for a contrast."""
    preparation: PreparationConfig = read_model(MODELS[modality]).preparation
    return preparation


def list_cases(kind: str, group: str, clean: Clean) -> Iterator[tuple[str, str, Damage | None]]:
    """Yield name, stated contrast and damage of each case of a scan."""
    modality = GROUPS[group][2]
    if kind == "healthy":
        if group != AGENT:
            yield "none", modality, None
        return
    if group == AGENT:
        yield "contrast agent, scanned", modality, None
        return
    for name, damage in DAMAGES.items():
        if name.startswith("vertex") and clean.stripped:
            continue  # nothing is left outside the brain
        if name.startswith("contrast agent") and modality != "T1w":
            continue
        yield name, modality, damage
    for wrong in WRONG[modality]:
        yield f"{modality} as {wrong}", wrong, None


def print_table(path: Path) -> None:
    """Print rates of flagged scans by damage or, of undamaged scans, numbers by group."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    by_name: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        is_wrong = " as " in row["damage"]
        name = "another contrast" if is_wrong else row["damage"]
        by_name[row["group"] if name == "none" else name].append(row)
    for name, cases in by_name.items():
        flagged = [row for row in cases if row["codes"]]
        codes = Counter(code for row in flagged for code in row["codes"].split())
        found = ", ".join(f"{code} {count}" for code, count in codes.most_common()) or "none"
        line = f"| {name} | {len(flagged)} of {len(cases)} | {found} |"
        if cases[0]["damage"] == "none":
            for key in NUMBERS:
                values = [float(row[key]) for row in cases if row[key]]
                line += f" {min(values):g} to {max(values):g} |" if values else " |"
        print(line)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=("healthy", "damaged", "table"))
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--cache", type=Path, help="folder of masks, alignments")
    parser.add_argument("--out", type=Path, required=True, help="CSV file")
    parser.add_argument("--scans", type=int, default=1000, help="scans of each group, at most")
    parser.add_argument("--cases", nargs="+", default=[""], help="starts of the names of cases")
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and append a row for each case to the CSV file."""
    args = build_parser().parse_args(argv)
    if args.kind == "table":
        print_table(args.out)
        return 0
    if args.data is None or args.cache is None:
        build_parser().error("give --data and --cache")
    done = set()
    if args.out.is_file():
        with args.out.open(newline="", encoding="utf-8") as file:
            done = {(row["group"], row["scan"], row["damage"]) for row in csv.DictReader(file)}
    with args.out.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", extrasaction="ignore")
        if not done:
            writer.writeheader()
        for group in args.groups:
            folder, pattern, _ = GROUPS[group]
            for path in sorted((args.data / folder).glob(pattern))[: args.scans]:
                for row in measure_scan(path, group, args, done):
                    writer.writerow(row)
                    file.flush()
    return 0


def measure_scan(
    path: Path, group: str, args: argparse.Namespace, done: set[tuple[str, str, str]]
) -> Iterator[dict[str, Any]]:
    """Yield a row for each case of a scan that is not in `done`."""
    folder, _, modality = GROUPS[group]
    # sub-01/anat/..., Subj2/..., TCGA_.../..., or IXI012-...
    scan = path.relative_to(args.data / folder).parts[0].partition("-HH")[0].partition("-Guys")[0]
    key = f"{group} {scan}".replace(" ", "-").replace("(", "").replace(")", "")
    if args.kind == "healthy" and (group, scan, "none") in done:
        return
    clean = read_clean(path, modality, args.cache, key)
    if args.kind == "damaged" and modality == "T1w":
        patient = args.data / "mslub" / "patient07"
        clean = replace(clean, enhancement=read_enhancement(patient, args.cache))
    for name, stated, damage in list_cases(args.kind, group, clean):
        if (group, scan, name) in done or not name.startswith(tuple(args.cases)):
            continue
        seed = hashlib.sha256(f"{key} {name}".encode()).digest()
        rng = np.random.default_rng(list(seed[:8]))
        volume, brain = damage(clean, rng) if damage else (clean.volume, clean.brain)
        yield {
            "group": group,
            "scan": scan,
            "damage": name,
            **measure(clean, volume, brain, stated),
        }


if __name__ == "__main__":
    raise SystemExit(main())
