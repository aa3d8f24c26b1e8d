"""The complete preparation of one scan."""

from dataclasses import replace

import numpy as np
import pytest

from helpers.brains import ball, made_brain, made_volume
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
