"""tools/comparison_picture.py on stored slices of made-up subjects."""

import numpy as np
import pytest
from matplotlib.image import imread

from helpers.scripts import load_script
from maediff.anomaly.snapshots import Snapshot, save_slices

comparison_picture = load_script("tools/comparison_picture.py")
BRAIN = np.ones((3, 8, 8), bool)


def make_snapshot(lesion_slice=None, reference=True):
    image = np.linspace(0, 1, 192, dtype=np.float32).reshape(3, 8, 8)
    lesion = None
    if lesion_slice is not None:
        lesion = np.zeros_like(BRAIN)
        lesion[lesion_slice, 2:4, 2:4] = True
    return Snapshot(
        slice_ids=np.arange(3),
        image=image,
        anomaly_map=image,
        brain=BRAIN,
        mask=BRAIN,
        spacing_mm=(2.0, 2.0, 4.0),
        reference=image if reference else None,
        lesion=lesion,
    )


@pytest.fixture
def evaluation(tmp_path):
    """Return a folder with the slices of two subjects for a run and for a baseline."""
    for method in ("run", "bright"):
        for subject, lesion_slice in (("a", 2), ("b", None)):
            snapshot = make_snapshot(lesion_slice, reference=method == "run")
            save_slices(tmp_path / "slices" / method / f"{subject}.npz", snapshot, np.arange(3))
    return tmp_path


def test_a_row_for_each_subject_and_two_columns_for_each_method(evaluation, tmp_path):
    out = tmp_path / "new" / "picture.png"
    arguments = [str(evaluation), str(out), "--methods", "run", "bright", "--labels", "A", "B"]
    assert comparison_picture.main(arguments) == 0
    assert imread(out).shape[:2] == (int(2 * 1.55 * 90), 6 * 1.5 * 90)


def test_the_slice_with_most_lesion_is_shown():
    assert comparison_picture.best_slice(make_snapshot(2)) == 2
    smaller = np.ones((3, 8, 8), bool)
    smaller[[0, 2], 0] = False
    snapshot = make_snapshot()
    assert comparison_picture.best_slice(Snapshot(**{**vars(snapshot), "brain": smaller})) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "absent"], "no stored slices"),
        (["--methods", "run", "--subjects", "c"], "c.npz"),
        (["--methods", "run", "--labels", "A", "B"], "2 labels for 1 methods"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(evaluation, capsys, options, message):
    out = evaluation / "picture.png"
    with pytest.raises(SystemExit, match="2"):
        comparison_picture.main([str(evaluation), str(out), *options])
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not out.exists()
