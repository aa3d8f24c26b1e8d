"""Contrasts of one person: registration, the brain of the T1w, and the combined map."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.brains import dice, made_volume, oblique
from helpers.heads import fake_extraction, made_head, true_brain
from helpers.sessions import inverted, made_scan
from maediff.anomaly.combine import CombineConfig, combine_maps
from maediff.core.errors import InputError
from maediff.detection.detector import load
from maediff.detection.session.detector import (
    detect_session,
    load_session_detector,
    move_mask,
    register_scans,
)
from maediff.models.thresholds import Threshold

MEAN = CombineConfig(power=1.0)


def same_place(fixed, moving):
    """Stand in for the registration of scans that have the same coordinates."""
    return np.eye(4)


def volumes(*, moved_by=None, radii_mm=(50.0, 62.0, 42.0)):
    """Return a T1w, and a FLAIR whose head was moved and has its own size."""
    data, _, affine = made_scan()
    other, _, _ = made_scan(radii_mm=radii_mm)
    place = np.eye(4) if moved_by is None else moved_by
    return {
        "T1w": made_volume(data, affine, "T1.nii.gz"),
        "FLAIR": made_volume(inverted(other), place @ affine, "FLAIR.nii.gz"),
    }


def make_detector(models, register=same_place, rule=MEAN, contrasts=("T1w", "FLAIR")):
    chosen = {name: models[name] for name in contrasts}
    return replace(load_session_detector(chosen, rule=rule, device="cpu"), register=register)


def test_contrasts_are_those_of_single_scans(models):
    scans = volumes()
    result = make_detector(models).detect(scans)
    for contrast, detection in result.detections.items():
        alone = load(models[contrast], device="cpu").detect(scans[contrast])
        np.testing.assert_array_equal(detection.anomaly_map, alone.anomaly_map)
        np.testing.assert_array_equal(detection.anomaly_mask, alone.anomaly_mask)


def test_the_combined_map_is_the_rule_applied_to_the_maps(models):
    result = make_detector(models).detect(volumes())
    maps = {
        contrast: detection.on_model_grid.anomaly_map / detection.threshold
        for contrast, detection in result.detections.items()
    }
    covered = {contrast: np.ones(units.shape, bool) for contrast, units in maps.items()}
    brain = result.detections["T1w"].on_model_grid.brain
    expected = np.where(brain, combine_maps(maps, covered, MEAN), 0)
    np.testing.assert_allclose(result.combined.slices.anomaly_map, expected, atol=1e-5)
    assert result.combined.grid_of == "T1w"
    assert (result.combined.slices.mask <= (expected > 1)).all()
    assert result.combined.volume_ml > 0 and result.combined.score > 1


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_one_contrast_gives_its_own_mask(models, power):
    detector = make_detector(models, rule=CombineConfig(power=power), contrasts=("FLAIR",))
    result = detector.detect({"FLAIR": volumes()["FLAIR"]})
    alone, combined = result.detections["FLAIR"], result.combined
    np.testing.assert_array_equal(combined.anomaly_mask, alone.anomaly_mask)
    assert combined.score == pytest.approx(alone.score / alone.threshold, rel=1e-4)
    np.testing.assert_allclose(
        combined.anomaly_map, alone.anomaly_map / alone.threshold, atol=1e-4
    )


def test_regions_of_one_contrast_grow_as_alone(models):
    detector = make_detector(models, contrasts=("FLAIR",))
    limits = {"FLAIR": Threshold.given(0.2)}
    volumes_ml = []
    for extent in (0.99, 0.5):
        changed = detector.detectors["FLAIR"].with_postprocess({"extent": extent})
        grown = replace(detector, detectors={"FLAIR": changed})
        result = grown.detect({"FLAIR": volumes()["FLAIR"]}, thresholds=limits)
        alone = result.detections["FLAIR"]
        np.testing.assert_array_equal(result.combined.anomaly_mask, alone.anomaly_mask)
        assert result.combined.score == pytest.approx(alone.score / 0.2, rel=1e-4)
        volumes_ml.append(result.combined.volume_ml)
    assert 0 < volumes_ml[0] < volumes_ml[1]


def test_a_given_brain_mask_is_never_ignored(models):
    with pytest.raises(InputError, match=r"`brain_mask=none\.nii`: no such file"):
        make_detector(models).detect(volumes(), brain_mask="none.nii")


def test_a_moved_head_is_brought_to_the_grid_of_the_t1w(models):
    """The FLAIR of the same head, turned and shifted, gives nearly the same combined map."""
    move = np.eye(4)
    move[:3, 3] = (6.0, -9.0, 14.0)
    move = move @ oblique(np.eye(4), (0.0, 0.0, 7.0))
    still = make_detector(models).detect(volumes()).combined

    def true_place(fixed, moving):
        return np.linalg.inv(move)

    moved = make_detector(models, true_place).detect(volumes(moved_by=move)).combined
    inside = still.slices.brain
    near = np.corrcoef(still.slices.anomaly_map[inside], moved.slices.anomaly_map[inside])[0, 1]
    unmoved = make_detector(models).detect(volumes(moved_by=move)).combined
    far = np.corrcoef(still.slices.anomaly_map[inside], unmoved.slices.anomaly_map[inside])[0, 1]
    assert near > 0.9 > far
    movement = moved.summary()["contrasts"]["FLAIR"]
    assert movement["turn_deg"] == pytest.approx(7.0, abs=0.1) and movement["shift_mm"] > 10


def test_the_registration_finds_the_movement():
    """The real registration, on thick slices of a synthetic brain moved by 5 mm."""
    move = np.eye(4)
    move[:3, 3] = (4.0, -3.0, 0.0)
    scans = volumes(moved_by=move)
    to_t1 = register_scans(scans["FLAIR"], scans["T1w"])
    np.testing.assert_allclose(to_t1[:2, 3], [-4.0, 3.0], atol=1.0)


def test_a_failed_registration_leaves_the_maps_alone(models):
    def refuse(fixed, moving):
        raise InputError("FLAIR.nii.gz: registration went wrong")

    result = make_detector(models, refuse).detect(volumes())
    assert result.combined is None and sorted(result.detections) == ["FLAIR", "T1w"]
    assert "FLAIR is not of the same head" in result.problem
    assert "registration went wrong" in result.problem


@pytest.mark.parametrize(("factor", "same"), [(0.97, True), (0.9, False)])
def test_brains_of_unlike_volume_are_of_two_heads(models, factor, same):
    """0.97^3 is 9 % less, 0.9^3 is 27 % less."""
    scans = volumes(radii_mm=tuple(factor * mm for mm in (50.0, 62.0, 42.0)))
    result = make_detector(models).detect(scans)
    assert (result.combined is not None) is same
    assert same or "15% at most" in result.problem


def test_a_contrast_that_fails_leaves_the_others(models):
    scans = {**volumes(), "FLAIR": Path("missing_FLAIR.nii.gz")}
    result = make_detector(models).detect(scans)
    assert "missing_FLAIR" in result.failures["FLAIR"]
    assert list(result.combined.detections) == ["T1w"]
    with pytest.raises(InputError, match="missing_FLAIR"):
        make_detector(models).detect({"FLAIR": Path("missing_FLAIR.nii.gz")})


def test_a_raw_flair_gets_the_brain_of_the_t1w(models):
    """The tool finds a smaller brain in the FLAIR, which is used for the comparison only."""
    data, brain, affine = made_head()
    scans = {
        "T1w": made_volume(data, affine, "T1.nii.gz"),
        "FLAIR": made_volume(data + 1, affine, "FLAIR.nii.gz"),
    }

    def extract(volume):
        found = true_brain(volume)
        if volume.source.name == "FLAIR.nii.gz":
            found[:2] = False
        return found

    tools, calls = fake_extraction(extract)
    detector = make_detector(models)
    with_tools = {name: replace(each, tools=tools) for name, each in detector.detectors.items()}
    result = replace(detector, detectors=with_tools).detect(scans)
    assert calls == ["T1.nii.gz", "FLAIR.nii.gz"] and not result.problem
    for detection in result.detections.values():
        assert dice(detection.brain_mask, brain) > 0.97
    origin = result.detections["FLAIR"].prepared.on_scan.brain_from
    assert origin == "deepbet on T1.nii.gz, moved"


def test_a_raw_flair_of_another_person_is_found_by_its_own_brain(models):
    data, _, affine = made_head()
    scans = {
        "T1w": made_volume(data, affine, "T1.nii.gz"),
        "FLAIR": made_volume(data + 1, affine, "FLAIR.nii.gz"),
    }

    def extract(volume):
        found = true_brain(volume)
        if volume.source.name == "FLAIR.nii.gz":
            found[:, :30] = False
        return found

    tools, _ = fake_extraction(extract)
    detector = make_detector(models)
    with_tools = {name: replace(each, tools=tools) for name, each in detector.detectors.items()}
    result = replace(detector, detectors=with_tools).detect(scans)
    assert "FLAIR is not of the same head" in result.problem and result.combined is None


def test_a_scan_of_a_part_of_the_head_covers_only_that_part(models):
    scans = volumes()
    flair = scans["FLAIR"]
    affine = flair.affine.copy()
    affine[:3, 3] += affine[:3, 2] * 5  # without the lowest five slices
    scans["FLAIR"] = made_volume(flair.data[:, :, 5:], affine, "FLAIR.nii.gz")
    combined = make_detector(models).detect(scans).combined
    covered = combined.aligned["FLAIR"].covered
    assert not covered[0].any() and covered[-2].any()
    t1 = combined.aligned["T1w"].slices.anomaly_map
    lowest = combined.slices.brain[0]
    np.testing.assert_allclose(combined.slices.anomaly_map[0][lowest], t1[0][lowest], rtol=1e-5)


def test_move_mask_follows_the_transform():
    data, brain, affine = made_scan()
    source = made_volume(data, affine)
    shift = np.eye(4)
    shift[0, 3] = 4.0  # two voxels
    moved = move_mask(brain, source, source, shift)
    np.testing.assert_array_equal(moved[:-2], brain[2:])


def test_arguments_are_checked(models):
    with pytest.raises(InputError, match="empty; give a scan"):
        detect_session({})
    with pytest.raises(InputError, match="'T1' is none of T1w, T2w, FLAIR"):
        detect_session({"T1": "x.nii.gz"})
    with pytest.raises(InputError, match="a model for T1w, but it was given for FLAIR"):
        detect_session({"FLAIR": "x.nii.gz"}, models={"FLAIR": models["T1w"]})
    data, _, _ = made_scan()
    with pytest.raises(InputError, match="an array without its affine"):
        detect_session({"T1w": data}, models=models)


def test_maediff_has_the_function():
    import maediff

    assert maediff.detect_session is detect_session
