"""Read mutated scan files: each must be read with finite values or be refused with an InputError.

    python experiments/reliability/mutate_files.py --count 1000 --seed 2

A mutation sets, flips, inserts or removes bytes, most of them in the header, or cuts the file.
"""

import argparse
import gzip
import logging
import random
import resource
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from maediff.core.errors import InputError
from maediff.scans.read import read_scan

ROOT = Path(__file__).resolve().parents[2]
SHAPE = (12, 13, 14)
AFFINE = np.array([[-2.0, 0, 0, 11], [0, 2, 0, -12], [0, 0, 3, -20], [0, 0, 0, 1]])
SPECIAL = (0, 1, 2**31 - 1, 2**32 - 1, 0x7FC00000, 0x7F800000, 0xFF800000)  # also NaN, infinity
SLOW_SECONDS = 60.0


def mutate(content: bytes, header_bytes: int, rng: random.Random) -> bytes:
    """Return the content with 1 to 16 changes.

    Args:
        content: a valid file.
        header_bytes: number of bytes at the start in which 85 % of the changes are.
        rng: source of random numbers.
    """
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        end = min(len(changed), header_bytes) if rng.random() < 0.85 else len(changed)
        at, length, action = rng.randrange(end), rng.randrange(1, 9), rng.random()
        if action < 0.4:
            changed[at] = rng.randrange(256)
        elif action < 0.6:
            changed[at] ^= 1 << rng.randrange(8)
        elif action < 0.7:
            changed[at : at + 4] = struct.pack("<I", rng.choice(SPECIAL))
        elif action < 0.8:
            del changed[at : at + length]
        elif action < 0.9:
            changed[at:at] = rng.randbytes(length)
        else:
            del changed[max(at, 1) :]
        changed = changed or bytearray(b"x")
    return bytes(changed)


def write_scans(folder: Path) -> dict[Path, tuple[Path, int]]:
    """Write valid scans; return each file that is mutated, with what to read and its header."""
    sys.path.insert(0, str(ROOT / "tests"))
    from helpers.dicom import write_enhanced, write_series

    voxels = np.random.default_rng(0).integers(1, 900, SHAPE).astype(np.int16)
    writers: dict[str, Callable[..., object]] = {
        "a.nii": nib.Nifti1Image,
        "b.nii": nib.Nifti2Image,
        "c.nii.gz": nib.Nifti1Image,
        "d.hdr": nib.Nifti1Pair,
        "e.mgz": nib.MGHImage,
    }
    targets: dict[Path, tuple[Path, int]] = {}
    for name, image_class in writers.items():
        nib.save(image_class(voxels, AFFINE), folder / name)
        targets[folder / name] = (folder / name, 600)
    for file in write_series(folder / "series", voxels.astype(float), AFFINE)[:5]:
        targets[file] = (folder / "series", 1100)
    enhanced = write_enhanced(folder / "enhanced" / "x.dcm", voxels.astype(float), AFFINE)
    targets[enhanced] = (enhanced.parent, 3000)
    return targets


def run_once(file: Path, target: Path, header_bytes: int, rng: random.Random) -> str:
    """Mutate one file, read the scan, restore the file, and return the outcome in words."""
    original = file.read_bytes()
    is_packed = original.startswith(b"\x1f\x8b") and rng.random() < 0.7
    content = gzip.decompress(original) if is_packed else original
    changed = mutate(content, header_bytes, rng)
    file.write_bytes(gzip.compress(changed, 1) if is_packed else changed)
    started = time.monotonic()
    try:
        scan = read_scan(target)
        is_finite = np.isfinite(scan.data).all() and np.isfinite(scan.affine).all()
        outcome = "read" if is_finite else "read with NaN or infinity"
    except InputError:
        outcome = "refused"
    except Exception as error:
        outcome = f"escaped {type(error).__name__}"
    finally:
        file.write_bytes(original)
    return "slow" if time.monotonic() - started > SLOW_SECONDS else outcome


def build_parser() -> argparse.ArgumentParser:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000, help="number of mutated files")
    parser.add_argument("--seed", type=int, default=2)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Print how many mutated files were read, refused, or failed in another way."""
    options = build_parser().parse_args(arguments)
    logging.disable(logging.CRITICAL)
    rng = random.Random(options.seed)  # noqa: S311
    with tempfile.TemporaryDirectory() as folder:
        targets = list(write_scans(Path(folder)).items())
        counts = Counter(
            run_once(file, *target, rng)
            for file, target in (rng.choice(targets) for _ in range(options.count))
        )
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{dict(counts)}, peak memory {peak_mb:.0f} MB")
    if set(counts) - {"read", "refused"}:
        sys.exit(1)


if __name__ == "__main__":
    main()
