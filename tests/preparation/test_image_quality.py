"""Noise, signal in the air and fluid at the vertex, on synthetic scans."""

import math

import numpy as np
import pytest

from helpers.brains import made_brain, made_volume
from helpers.heads import made_head
from maediff.preparation.quality import QualityConfig, check_air, check_contrast, check_image
from maediff.preparation.quality.atlas import estimate_contrast
from maediff.preparation.quality.image import (
    measure_air_signal,
    measure_noise,
    measure_vertex_fluid,
)

CONFIG = QualityConfig()
SPACING = np.array([2.0, 2.0, 2.0])


@pytest.fixture(scope="module")
def scan():
    data, brain, affine = made_brain()
    return (data / 200).astype(np.float32), brain, affine


@pytest.mark.parametrize("sd", [0.03, 0.1])
def test_noise_has_its_standard_deviation(scan, sd):
    image, brain, _ = scan
    assert measure_noise(image, brain) < 0.01
    noisy = image + np.random.default_rng(0).normal(0, sd, image.shape).astype(np.float32)
    assert measure_noise(noisy, brain) == pytest.approx(sd, rel=0.1)
    record, flags = check_image(noisy, brain, SPACING, "T1w", CONFIG)
    assert record["noise"] == pytest.approx(sd, rel=0.1)
    assert [flag.code for flag in flags] == (["noise"] if sd > CONFIG.max_noise else [])


def test_too_little_tissue(scan):
    image, brain, _ = scan
    assert math.isnan(measure_noise(image, np.zeros_like(brain)))
    sliver = np.zeros_like(brain)
    sliver[30, 30:40, 20:30] = True
    assert check_image(image, sliver, SPACING, "T1w", CONFIG) == ({}, [])


def test_ghosts_in_the_air():
    data, brain, affine = made_head((120, 130, 14), (2.0, 2.0, 6.0))
    volume = made_volume(data, affine)
    clean = measure_air_signal(volume, brain)
    assert clean < 0.07 and check_air(volume, brain, CONFIG)[1] == []
    ghost = 0.4 * np.roll(data, 60, axis=1)  # half a field of view to the front
    record, flags = check_air(made_volume(data + ghost, affine), brain, CONFIG)
    assert record["air_signal"] > CONFIG.max_air and [flag.code for flag in flags] == ["ghosting"]
    tight = (slice(35, 85), slice(34, 97))  # a field of view without air
    cropped = made_volume(data[tight], affine)
    assert check_air(cropped, brain[tight], CONFIG) == ({}, [])


def test_fluid_at_the_vertex(scan):
    brain = scan[1]
    dark = np.where(brain, 0.5, 0).astype(np.float32)
    assert measure_vertex_fluid(dark, brain, SPACING) == 0
    heights = np.flatnonzero(brain.any(axis=(0, 1)))
    kept = dark.copy()
    kept[:, :, heights[-1] - 2 :][brain[:, :, heights[-1] - 2 :]] = 1.0
    expected_ml = brain[:, :, heights[-1] - 2 :].sum() * 8 / 1000
    assert measure_vertex_fluid(kept, brain, SPACING) == pytest.approx(expected_ml)
    kept[:, :, heights[-1] - 2 :] = 0  # skull
    assert measure_vertex_fluid(kept, brain, SPACING) == pytest.approx(expected_ml)
    below = dark.copy()
    below[:, :, : heights[0] + 4] = 1.0
    assert measure_vertex_fluid(below, brain, SPACING) == 0  # fluid below the brain
    config = QualityConfig(max_vertex_ml=1.0)
    assert check_image(kept, brain, SPACING, "T2w", config)[1][0].code == "brain-outline"
    assert check_image(kept, brain, SPACING, "T1w", config)[1] == []


@pytest.mark.parametrize(
    ("white", "grey", "fluid", "looks", "contradicts"),
    [
        (0.85, 0.49, 0.16, "T1w", {"T2w", "FLAIR"}),  # ds000011
        (0.68, 0.53, 0.20, "T1w", {"T2w", "FLAIR"}),  # wmh, 80 years old
        (0.45, 0.55, 0.93, "T2w", {"T1w", "FLAIR"}),  # inplaneT2 of ds000011
        (0.64, 0.58, 0.10, None, {"T1w", "T2w"}),  # FLAIR of wmh
        (0.75, 0.82, 0.34, None, {"T1w", "T2w"}),  # FLAIR of mslub
        (0.68, 0.63, 0.65, None, {"T1w"}),  # FLAIR with a tumour beside the ventricles
    ],
)
def test_contrast_by_tissue(white, grey, fluid, looks, contradicts):
    record = {"tissue_levels": {"white": white, "grey": grey, "fluid": fluid}}
    assert estimate_contrast(record) == looks
    flagged = {name for name in ("T1w", "T2w", "FLAIR") if check_contrast(record, name, CONFIG)}
    assert flagged == contradicts
    assert check_contrast({"tissue_levels": {}}, "T1w", CONFIG) == []
