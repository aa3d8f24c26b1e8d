"""Small BIDS datasets, manifests and data sets of known layouts, for tests of the finders."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np


def touch(*paths: Path) -> None:
    """Create empty files."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def write_tiny_scans(*paths: Path) -> None:
    """Write a NIfTI file of eight random voxels for each path."""
    header = nib.Nifti1Image(np.zeros((2, 2, 2), dtype=np.float32), np.eye(4)).to_bytes()[:352]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        voxels = np.random.default_rng([number, len(paths)]).normal(size=8).astype("<f4")
        content = header + voxels.tobytes()
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def make_bids(root: Path, *files: str) -> Path:
    """Create a BIDS dataset of empty files and return its folder."""
    touch(root / "dataset_description.json", *(root / file for file in files))
    return root


def make_manifest(root: Path, text: str, *files: str) -> Path:
    """Write a manifest, create the empty files that it lists, and return its path."""
    touch(*(root / file for file in files))
    (root / "scans.csv").write_text(text, encoding="utf-8")
    return root / "scans.csv"


def names_of(refs):
    return [ref.name for ref in refs]


def make_ixi(root: Path) -> Path:
    """Write four subjects of IXI in three contrasts."""
    write_tiny_scans(
        *(
            root / f"IXI-{kind}" / f"{name}-{kind}.nii.gz"
            for name in ("IXI012-HH-1211", "IXI013-HH-1212", "IXI002-Guys-0828", "IXI035-IOP-0873")
            for kind in ("T1", "T2", "PD")
        )
    )
    return root


# Folders of the cases, character before the kind, and suffix of the files of each year.
BRATS = {
    "BraTS2018": (["HGG/Brats18_CBICA_AAB_1", "LGG/Brats18_TCIA09_177_1"], "_", ".nii.gz"),
    "BraTS2019": (["HGG/BraTS19_CBICA_AAB_1", "LGG/BraTS19_2013_0_1"], "_", ".nii"),
    "BraTS2020": (
        ["MICCAI_BraTS2020_TrainingData/BraTS20_Training_001", "v/BraTS20_Validation_001"],
        "_",
        ".nii.gz",
    ),
    "BraTS2021": (["BraTS2021_00000", "BraTS2021_01666"], "_", ".nii.gz"),
    "BraTS2023": (
        ["BraTS-GLI-00000-000", "BraTS-GLI-00000-001", "BraTS-GLI-00002-000"],
        "-",
        ".nii.gz",
    ),
}
BRATS_KINDS = {
    "-": ("t1n", "t1c", "t2w", "t2f", "seg"),
    "_": ("t1", "t1ce", "t2", "flair", "seg"),
}


def make_brats(root: Path, year: str) -> Path:
    """Write two or three cases of one year of BraTS; validation cases have no `seg`."""
    cases, join, suffix = BRATS[year]
    write_tiny_scans(
        *(
            root / case / f"{Path(case).name}{join}{kind}{suffix}"
            for case in cases
            for kind in BRATS_KINDS[join]
            if not ("Validation" in case and kind == "seg")
        )
    )
    return root


def make_mslub(root: Path, prefix: bool = True) -> Path:
    """Write the 30 patients of MSLUB; `prefix` puts the patient before the kind."""
    kinds = ("T1W", "T2W", "FLAIR", "T1WKS", "brainmask", "consensus_gt")
    patients = [f"patient{number:02}" for number in range(1, 31)]
    write_tiny_scans(
        *(
            root / patient / f"{patient + '_' if prefix else ''}{kind}.nii.gz"
            for patient in patients
            for kind in kinds
        )
    )
    return root
