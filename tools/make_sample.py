"""Write the synthetic sample scan of `maediff detect --sample`: one brain in T1w and FLAIR.

    python tools/make_sample.py src/maediff/synthetic/sample

The brain and its lesion come from `maediff.synthetic` with a fixed seed. No scan of a person is
involved.
"""

import argparse
import gzip
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from maediff.core.types import Modality
from maediff.synthetic.sample import make_sample_brain

CONTRASTS: tuple[Modality, ...] = ("T1w", "FLAIR")
SCALE = 1000
"""Stored intensity of a value of 1."""


def write_sample(folder: Path) -> list[Path]:
    """Write the scans; the same seed gives the same bytes.

    Returns:
        Their paths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for contrast in CONTRASTS:
        brain = make_sample_brain(contrast)
        image = nib.Nifti1Image(np.round(brain.image * SCALE).astype(np.int16), brain.affine)
        image.header.set_xyzt_units("mm")
        image.header["descrip"] = b"synthetic brain, maediff"
        paths.append(folder / f"sub-sample_{contrast}.nii.gz")
        paths[-1].write_bytes(gzip.compress(image.to_bytes(), mtime=0))
    return paths


def main(argv: Sequence[str] | None = None) -> int:
    """Write the sample and print its paths."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder of the scans")
    for path in write_sample(parser.parse_args(argv).folder):
        print(path, path.stat().st_size, "bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
