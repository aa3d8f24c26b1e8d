"""Notes on post-processing and thresholds."""

import pytest

from maediff.anomaly.postprocess import PostprocessConfig
from maediff.evaluation.notes import describe_evaluation, describe_own_steps
from maediff.evaluation.scoring import ScoringConfig

METHOD = {
    "healthy_source": "healthy subjects",
    "conformal": {"n_scans": 9, "smallest_alpha": 0.1},
}
SUMMARY = {
    "n_subjects": 2,
    "n_scans": 2,
    "n_lesion": 1,
    "n_healthy": 1,
    "methods": {"bright": METHOD},
}


def describe(summary=SUMMARY, scan_fpr=0.1, **postprocess):
    config = ScoringConfig(scan_fpr=scan_fpr, postprocess=PostprocessConfig(**postprocess))
    return describe_evaluation(summary, config)


@pytest.mark.parametrize(
    ("postprocess", "text"),
    [
        ({}, "for all: no blur, median filter 5 (within"),
        ({"median_size": 1}, "for all: no blur, no median filter. The raw"),
        ({"smooth_mm": 4.0}, "for all: Gaussian blur of 4 mm, median"),
        (
            {"smooth_mm": (2, 20, 20)},
            "for all: arithmetic mean of Gaussian blurs of 2, 20 and 20 mm,",
        ),
        (
            {"smooth_mm": (2, 20), "smooth_mean": "geometric", "times_intensity": 2.0},
            "for all: geometric mean of Gaussian blurs of 2 and 20 mm, times the intensity to the "
            "power 2, median",
        ),
        (
            {"first_power": 2.0},
            "for all: times the intensity (at most 2) to the power 2, no blur, median",
        ),
        ({"symmetry": 0.5}, "no blur, minus 50% of what both sides of the brain have in common"),
        ({"erosion_iterations": 1}, "is eroded 1 times in the slice, and components under 64 mm3"),
    ],
)
def test_each_step_of_post_processing_is_described(postprocess, text):
    assert text in describe(**postprocess)[1]


def test_subjects_and_scans():
    assert describe()[0].startswith("2 subjects: 1 with a lesion, 1 healthy. ")
    sessions = describe({**SUMMARY, "n_subjects": 1})[0]
    assert sessions.startswith("1 subject with 2 scans; the mean of a person's scans counts once:")


def test_conformal_threshold():
    assert describe()[3].startswith("Conformal threshold: from the scores of 9 healthy")
    assert describe(scan_fpr=0.05)[3] == (
        "No conformal threshold: a rate of 5.0% needs 19 healthy people, and the calibration "
        "split has 9; they allow 10.00% (scan_fpr=0.1)."
    )


def test_no_healthy_scan():
    method = {
        "healthy_source": "lesion-free slices of patients",
        "conformal": {"n_scans": 0, "smallest_alpha": 1.0},
    }
    notes = describe({**SUMMARY, "methods": {"bright": method}})
    assert notes[3].endswith("the calibration split has 0.")
    assert "lesion-free slices of patients" in notes[4]
    assert len(describe()) == 4


def test_own_steps_of_a_run():
    own = {"first_smooth_mm": 4.0, "first_power": 2.0, "first_ceiling": 1.0}
    assert describe_own_steps({"a": {}, "b": own, "c": {**own, "first_power": 0.0}}) == [
        "b has steps of its own before these, also in its raw residual: Gaussian blur of 4 mm "
        "within the slice, times the intensity (at most 1) to the power 2.",
        "c has steps of its own before these, also in its raw residual: Gaussian blur of 4 mm "
        "within the slice.",
    ]
    assert describe_own_steps({"a": {"extent": 0.5}, "b": {"extent": 1.0}}) == [
        "Regions of a grow to 50% of the threshold."
    ]
