"""Fluid, skull and scalp in a brain mask, and its share of the head, on synthetic scans."""

import math

import numpy as np
import pytest
from scipy import ndimage

from helpers.brains import made_brain, made_volume
from maediff.preparation.quality import (
    ADVICE,
    QualityConfig,
    check_head,
    check_outline,
    check_pieces,
    shows_skull,
)
from maediff.preparation.quality.mask import measure_head, measure_vertex

CONFIG = QualityConfig()
SPACING = np.array([2.0, 2.0, 2.0])


@pytest.fixture(scope="module")
def brain():
    return made_brain()[1]


@pytest.fixture(scope="module")
def head():
    """A head with 13 mm of fluid, skull and scalp around the brain."""
    data, brain, affine = made_brain((100, 110, 90), (2.0, 2.0, 2.0))
    reach_mm = ndimage.distance_transform_edt(~brain, sampling=(2, 2, 2))
    data = np.where(brain, data, np.where(reach_mm < 13, 60, 3)).astype(np.float32)
    return data, brain, affine, reach_mm


def test_black_and_bright_voxels_at_the_vertex(brain):
    flat = np.where(brain, 0.5, 0).astype(np.float32)
    assert measure_vertex(flat, brain, SPACING, 0.8) == (0, 0)
    assert measure_vertex(flat, np.zeros_like(brain), SPACING, 0.8) == (0, 0)
    heights = np.flatnonzero(brain.any(axis=(0, 1)))
    top = np.zeros_like(brain)
    top[:, :, heights[-1] - 2 :] = brain[:, :, heights[-1] - 2 :]
    ml = top.sum() * 8 / 1000
    assert measure_vertex(np.where(top, 1, flat), brain, SPACING, 0.8) == (0, pytest.approx(ml))
    assert measure_vertex(np.where(top, 0, flat), brain, SPACING, 0.8) == (pytest.approx(ml), 0)
    below = flat.copy()
    below[:, :, : heights[0] + 4] = 1.0
    assert measure_vertex(below, brain, SPACING, 0.8) == (0, 0)
    deep = flat.copy()  # 10 mm from the edge
    deep[ndimage.distance_transform_edt(brain, sampling=SPACING) > 10] = 1.0
    assert measure_vertex(deep, brain, SPACING, 0.8) == (0, 0)


@pytest.mark.parametrize(
    ("modality", "level", "codes"),
    [
        ("T2w", 0.9, ["brain-outline"]),  # fluid
        ("T2w", 0.0, ["brain-outline"]),
        ("T1w", 0.9, []),  # white matter
        ("T1w", 1.2, ["brain-outline"]),  # fat
        ("FLAIR", 1.2, ["brain-outline"]),
        ("FLAIR", 0.0, ["brain-outline"]),
        ("other", 0.0, []),
    ],
)
def test_outline_by_contrast(brain, modality, level, codes):
    image = np.where(brain, 0.5, 0).astype(np.float32)
    heights = np.flatnonzero(brain.any(axis=(0, 1)))
    image[:, :, heights[-1] - 8 :] = level
    _, flags = check_outline(image, brain, SPACING, modality, CONFIG)
    assert [flag.code for flag in flags] == codes
    assert set(codes) <= ADVICE.keys()


def test_few_bright_voxels_are_flagged_before_much_fluid(brain):
    heights = np.flatnonzero(brain.any(axis=(0, 1)))
    image = np.where(brain, 0.5, 0).astype(np.float32)
    image[:, :, heights[-1] - 3 :] = 1.2
    record, flags = check_outline(image, brain, SPACING, "T1w", CONFIG)
    assert CONFIG.max_bright_ml < record["bright_ml"] < CONFIG.max_vertex_t1w_ml
    assert [str(flag) for flag in flags] == [
        f"{record['bright_ml']:.0f} ml of very bright voxels at the vertex: scalp"
    ]


def test_a_good_mask_of_a_head(head):
    data, brain, affine, _ = head
    volume = made_volume(data, affine)
    assert shows_skull(volume, brain)
    record, flags = check_head(volume, brain, CONFIG)
    assert flags == [] and record["scalp_ml"] == 0
    assert record["head_share"] == pytest.approx(brain.sum() / (data > 10).sum(), rel=0.05)


def test_half_a_brain_and_scalp_in_the_mask(head):
    data, brain, affine, reach_mm = head
    volume = made_volume(data, affine)
    half = brain.copy()
    half[50:] = False
    assert [flag.code for flag in check_head(volume, half, CONFIG)[1]] == ["brain-volume"]
    heights = np.flatnonzero(brain.any(axis=(0, 1)))
    spot = np.zeros_like(brain)
    spot[35:65, 40:70, heights[-1] - 5 :] = True
    with_scalp = brain | (spot & (reach_mm < 13))
    record, flags = check_head(volume, with_scalp, CONFIG)
    assert [flag.code for flag in flags] == ["brain-outline"] and record["scalp_ml"] > 4
    with_fluid = brain | (spot & (reach_mm < 5))
    assert check_head(volume, with_fluid, CONFIG)[1] == []
    whole = brain | (reach_mm < 13)
    codes = {flag.code for flag in check_head(volume, whole, CONFIG)[1]}
    assert codes == {"brain-volume", "brain-outline"}


def test_scans_in_which_scalp_cannot_be_measured(head):
    data, brain, affine, _ = head
    tight = (slice(38, 62), slice(42, 68), slice(36, 54))  # no air in the field of view
    assert math.isnan(measure_head(made_volume(data[tight], affine), brain[tight])[1])
    thick = affine @ np.diag([1, 1, 3, 1])
    share, scalp_ml = measure_head(made_volume(data[:, :, ::3], thick), brain[:, :, ::3])
    assert share == pytest.approx(measure_head(made_volume(data, affine), brain)[0], rel=0.1)
    assert math.isnan(scalp_ml)
    flat = np.zeros_like(brain)
    flat[:, :, 40] = brain[:, :, 40]
    assert check_head(made_volume(data, affine), flat, CONFIG) == ({}, [])


def test_pieces_of_a_mask(head):
    brain = head[1]
    assert check_pieces(brain) == [] and check_pieces(np.zeros_like(brain)) == []
    speck = brain.copy()
    speck[0, 0, 0] = True
    assert check_pieces(speck) == []
    cut = brain.copy()
    x, y, z = np.indices(brain.shape, sparse=True)
    cut[np.abs(x + y + z - 150) < 2] = False  # no slice is empty
    (flag,) = check_pieces(cut)
    assert flag.code == "brain-pieces" and "the largest has" in flag


def test_stripped_scans_show_no_skull(head):
    data, brain, affine, reach_mm = head
    stripped = np.where(brain, data, 0).astype(np.float32)
    assert not shows_skull(made_volume(stripped, affine), brain)
    assert not shows_skull(made_volume(data, affine), np.zeros_like(brain))
    scores = np.where(brain, (data - 1.2 * np.median(data[brain])) / data[brain].std(), 0)
    assert np.median(scores[brain]) < 0  # z-scores on zeros
    assert not shows_skull(made_volume(scores.astype(np.float32), affine), brain)
    loose = np.where(reach_mm < 3, data, 0).astype(np.float32)  # a mask inside the stripped brain
    assert not shows_skull(made_volume(loose, affine), brain)
