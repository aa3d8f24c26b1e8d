"""A small cohort."""

import pytest

from helpers.brains import ball, made_brain, save
from helpers.options import QUIET, UNREGISTERED
from maediff.cohort.cohort import Cohort
from maediff.cohort.preprocess import preprocess


@pytest.fixture
def cohort(tmp_path):
    """Return a cohort: two healthy scans, one ill and one unknown in train; one healthy in val."""
    lines = ["subject,image,lesion_mask,split,healthy,lesion_kind"]
    for number, (name, split, healthy) in enumerate(
        [
            ("a", "train", "1"),
            ("b", "train", "1"),
            ("ill", "train", "0"),
            ("unknown", "train", ""),
            ("v", "val", "1"),
        ]
    ):
        data, _, affine = made_brain((60, 72, 14), (2.0, 2.0, 6.0), seed=number)
        save(tmp_path / "in" / f"{name}.nii.gz", data, affine)
        if name == "ill":
            save(
                tmp_path / "in" / "lesion.nii.gz",
                ball(data.shape, affine, (10, 5, 0), 5.0),
                affine,
            )
        lines.append(
            f"{name},{name}.nii.gz,{'lesion.nii.gz' if name == 'ill' else ''},{split},{healthy},"
            f"{'bright' if name == 'ill' else ''}"
        )
    (tmp_path / "in" / "scans.csv").write_text("\n".join(lines))
    manifest = tmp_path / "in" / "scans.csv"
    failed = preprocess(
        [manifest], tmp_path / "cohort", modality="T1w", preparation=UNREGISTERED, run=QUIET
    )
    assert failed == 0
    return Cohort.open(tmp_path / "cohort")
