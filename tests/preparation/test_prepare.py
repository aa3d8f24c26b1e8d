"""The complete preparation of one scan."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from helpers.brains import ball, made_brain, made_volume, save
from helpers.heads import fake_extraction, made_head, true_brain
from helpers.options import UNALIGNED, UNREGISTERED
from maediff.preparation.config import PreparationConfig
from maediff.preparation.onto_grid import prepare_scan
from maediff.preparation.prepare import prepare
from maediff.preparation.quality import Flag
from maediff.preparation.registration import Alignment
from maediff.preparation.steps import Tools

CHECKED = Flag("not-a-brain", "checked")


def test_stripped_scan_needs_no_steps():
    data, _, affine = made_brain()
    volume = made_volume(data, affine)
    expected = prepare_scan(volume)
    prepared = prepare(volume, UNREGISTERED.for_modality("T1w"))
    assert prepared.on_scan.volume is volume
    np.testing.assert_array_equal(prepared.on_grid.image, expected.image)
    np.testing.assert_array_equal(prepared.on_grid.grid.affine, expected.grid.affine)
    record = prepared.on_grid.record
    assert {key: record[key] for key in expected.record} == expected.record


def test_registered_by_default():
    data, _, affine = made_brain()
    to_atlas = np.diag([1.1, 1.05, 1.0, 1.0])
    tools = Tools(
        align=lambda volume, brain, quick: Alignment(to_atlas, -0.5),
        check_alignment=lambda *_: ({"atlas_overlap": 0.95}, [CHECKED]),
    )
    volume = made_volume(data, affine)
    prepared = prepare(volume, PreparationConfig(modality="T1w"), tools=tools)
    assert prepared.on_scan.to_atlas is to_atlas
    assert prepared.on_grid.grid.atlas_affine is not None
    assert prepared.on_grid.record["to_atlas"] == to_atlas.tolist()
    unregistered = prepare(volume, UNREGISTERED.for_modality("T1w"), tools=tools)
    assert unregistered.on_scan.to_atlas is None
    assert unregistered.on_grid.grid.atlas_affine is None


def test_findings_of_both_parts():
    head, brain, affine = made_head()
    tools, _ = fake_extraction(true_brain)
    damaged = np.where(ball(head.shape, affine, (0, 0, 0), 100), 0, head)
    lesion = ball(head.shape, affine, (10, 10, 0), 5)
    config = UNALIGNED.for_modality("FLAIR")
    prepared = prepare(made_volume(damaged, affine), config, lesion=lesion, brain=brain)
    assert prepared.on_grid.record["brain_mask"] == "given"
    assert "empty_share" not in prepared.on_grid.record
    assert prepared.on_grid.lesion.any() and not prepared.on_grid.lesion_free.all()
    prepared = prepare(made_volume(head, affine), config, tools=tools)
    record = prepared.on_grid.record
    assert record["brain_mask"] == prepared.on_scan.brain_from == "deepbet"
    assert record["empty_share"] == prepared.on_scan.record["empty_share"] == 0
    assert record["flags"] == ["brain volume out of 800 to 2200 ml"]


def test_lesion_free_margin():
    data, brain, affine = made_brain((60, 72, 14), (2.0, 2.0, 6.0))
    lesion = ball(data.shape, affine, (10, 5, 0), 5)
    config = replace(UNREGISTERED, modality="T1w")
    free = [
        prepare(
            made_volume(data, affine),
            config,
            brain=brain,
            lesion=lesion,
            lesion_free_margin=margin,
        ).on_grid.lesion_free.sum()
        for margin in (0, 1, 3)
    ]
    assert free == [free[0], free[0] - 2, free[0] - 6]


def test_no_modality():
    data, _, affine = made_brain()
    with pytest.raises(ValueError, match=r"config\.modality is None: give T1w, T2w or FLAIR"):
        prepare(made_volume(data, affine), UNREGISTERED)


def test_a_given_mask_of_a_raw_scan_is_checked_beside_its_head():
    data, brain, affine = made_brain((100, 110, 90), (2.0, 2.0, 2.0))
    reach_mm = ndimage.distance_transform_edt(~brain, sampling=(2, 2, 2))
    head = np.where(brain, data, np.where(reach_mm < 13, 60, 3)).astype(np.float32)
    config = UNALIGNED.for_modality("T1w")
    half = brain.copy()
    half[50:] = False
    for mask, codes in ((brain, set()), (half, {"brain-volume"})):
        record = prepare(made_volume(head, affine), config, brain=mask).on_grid.record
        assert "head_share" in record and "air_signal" in record
        assert set(record["flag_codes"]) - {"brain-outline"} >= codes
        assert any("of the upper head" in flag for flag in record["flags"]) == bool(codes)
    record = prepare(made_volume(data, affine), config).on_grid.record
    assert "head_share" not in record


@pytest.mark.parametrize(
    ("radii_mm", "stripped", "flagged"),
    [
        ((50, 62, 42), True, []),
        ((48, 60, 40), True, []),
        ((44, 56, 38), True, ["mask-differs"]),
        ((56, 70, 46), True, ["mask-differs"]),
        ((44, 56, 38), False, []),  # a T1w with skull is not compared
    ],
)
def test_the_brain_of_a_stripped_scan_beside_that_of_its_t1w(
    tmp_path, radii_mm, stripped, flagged
):
    t1, _, affine = made_brain((64, 80, 14), (2.0, 2.0, 7.0))
    noise = 0 if stripped else np.random.default_rng(0).integers(1, 9, t1.shape)
    path = save(tmp_path / "sub-1_T1w.nii.gz", (t1 + noise).astype(np.float32), affine)
    data, _, _ = made_brain((64, 80, 14), (2.0, 2.0, 7.0), radii_mm)
    config = UNALIGNED.for_modality("FLAIR")
    stepped = prepare(made_volume(data, affine), config, t1=path).on_scan
    assert [flag.code for flag in stepped.flags] == flagged
    if flagged:
        assert "ml in its T1w" in stepped.flags[0]
