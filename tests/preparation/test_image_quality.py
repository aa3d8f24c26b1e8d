"""Noise, signal in the air, contrast agent and contrast, on synthetic scans."""

import math

import numpy as np
import pytest

from helpers.brains import made_brain, made_volume
from helpers.heads import made_head
from maediff.preparation.quality import QualityConfig, check_air, check_contrast, check_image
from maediff.preparation.quality.atlas import estimate_contrast
from maediff.preparation.quality.image import (
    measure_air_signal,
    measure_bright_share,
    measure_noise,
)

CONFIG = QualityConfig()


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
    record, flags = check_image(noisy, brain, "T1w", CONFIG)
    assert record["noise"] == pytest.approx(sd, rel=0.1)
    assert [flag.code for flag in flags] == (["noise"] if sd > CONFIG.max_noise else [])


def test_too_little_tissue(scan):
    image, brain, _ = scan
    assert math.isnan(measure_noise(image, np.zeros_like(brain)))
    sliver = np.zeros_like(brain)
    sliver[30, 30:40, 20:30] = True
    assert check_image(image, sliver, "T1w", CONFIG) == ({"bright_share": 0.0}, [])


def test_ghosts_in_the_air():
    data, brain, affine = made_head((120, 130, 14), (2.0, 2.0, 6.0))
    volume = made_volume(data, affine)
    clean = measure_air_signal(volume, brain)
    assert clean < 0.07 and check_air(volume, brain, "T1w", CONFIG)[1] == []
    ghost = np.roll(data, 60, axis=1)  # half a field of view to the front
    for strength, flagged in ((0.02, ("T2w", "FLAIR")), (0.4, ("T1w", "T2w", "FLAIR"))):
        haunted = made_volume(data + strength * ghost, affine)
        for modality in ("T1w", "T2w", "FLAIR"):
            record, flags = check_air(haunted, brain, modality, CONFIG)
            assert [flag.code for flag in flags] == ["ghosting"] * (modality in flagged), record
    tight = (slice(35, 85), slice(34, 97))  # a field of view without air
    cropped = made_volume(data[tight], affine)
    assert check_air(cropped, brain[tight], "T1w", CONFIG) == ({}, [])


def test_contrast_agent_is_brighter_than_white_matter(scan):
    image, brain, _ = scan
    assert measure_bright_share(image, brain) == 0
    assert measure_bright_share(image, np.zeros_like(brain)) == 0
    vessels = image.copy()
    count = round(0.003 * brain.sum())
    vessels[tuple(np.argwhere(brain)[:: brain.sum() // count][:count].T)] = 1.8
    record, flags = check_image(vessels, brain, "T1w", CONFIG)
    assert record["bright_share"] == pytest.approx(0.003, rel=0.01)
    assert [flag.code for flag in flags] == ["contrast-agent"]
    assert check_image(vessels, brain, "FLAIR", CONFIG)[1] == []
    outside = np.where(brain, image, 1.8).astype(np.float32)
    assert check_image(outside, brain, "T1w", CONFIG)[1] == []


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
