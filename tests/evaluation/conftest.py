"""A small cohort, and made scans to calibrate on and to score."""

import pytest

from helpers.brains import ball, made_brain, save
from helpers.options import QUIET, UNREGISTERED
from helpers.scores import CONTENDERS, made_scan
from maediff.cohort.preprocess import preprocess
from maediff.evaluation.scoring import score


@pytest.fixture(scope="session")
def flair_cohort(tmp_path_factory):
    """Six thick-slice scans: one healthy and one with a lesion in each split."""
    folder = tmp_path_factory.mktemp("evaluate")
    lines = ["subject,image,lesion_mask,split,healthy"]
    for number, split in enumerate(("train", "val", "test")):
        for healthy in (1, 0):
            name = f"{split}-{'healthy' if healthy else 'ill'}"
            data, brain, affine = made_brain(
                (60, 72, 12), (2.0, 2.0, 8.0), seed=number + 10 * healthy
            )
            lesion = ball(data.shape, affine, (15, 10, 0), 15) & brain & (healthy == 0)
            save(folder / f"{name}.nii.gz", data + 60 * lesion, affine)
            save(folder / f"{name}_lesion_mask.nii.gz", lesion, affine)
            lines.append(f"{name},{name}.nii.gz,{name}_lesion_mask.nii.gz,{split},{healthy}")
    (folder / "scans.csv").write_text("\n".join(lines))
    failed = preprocess(
        [folder / "scans.csv"],
        folder / "cohort",
        modality="FLAIR",
        preparation=UNREGISTERED,
        run=QUIET,
    )
    assert failed == 0
    return folder / "cohort"


@pytest.fixture(scope="session")
def calibrate():
    return [made_scan("c0", healthy=True, seed=10), made_scan("c1", healthy=False, seed=11)]


@pytest.fixture(scope="session")
def scored():
    return [
        made_scan("a", healthy=False, seed=0, kind="bright"),
        made_scan("b", healthy=False, seed=1, kind="dark", at=(1, 12, 9)),
        made_scan("h", healthy=True, seed=2),
    ]


@pytest.fixture(scope="session")
def outcome(calibrate, scored):
    return score(CONTENDERS, calibrate, scored)
