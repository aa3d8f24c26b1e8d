"""A scan on the model's grid: independent of scanner, orientation and what surrounds the brain."""

import numpy as np
import pytest

from helpers.brains import ball, made_brain, made_volume, save
from maediff.core.errors import InputError
from maediff.core.types import CEILING
from maediff.preparation.intensities import NormaliseConfig, compute_deciles
from maediff.preparation.onto_grid import prepare_scan
from maediff.scans.nifti import read_nifti


def test_brightness_and_contrast_do_not_matter():
    data, brain, affine = made_brain()
    plain = prepare_scan(made_volume(data, affine), brain)
    scaled = prepare_scan(made_volume(np.where(brain, data * 7 + 30, 0), affine), brain)
    np.testing.assert_allclose(plain.image, scaled.image, atol=1e-5)
    assert plain.image.min() == 0 and 1 < plain.image.max() < CEILING
    assert not plain.image[~plain.brain].any()


@pytest.mark.parametrize(("background", "atol"), [("z-scores", 1e-3), ("zero", 0.2)])
def test_z_scores(background, atol):
    data, brain, affine = made_brain((136, 136, 100), (1.0, 1.0, 1.0))
    plain = prepare_scan(made_volume(data, affine))
    mean, sd = data[brain].mean(), data[brain].std()
    scores = (data - mean) / sd
    if background == "zero":  # mid-grey in z-scores, so the floor is the brain's low percentile
        scores = np.where(brain, scores, 0)
    scored = prepare_scan(made_volume(scores, affine), brain if background == "zero" else None)
    np.testing.assert_array_equal(scored.brain, plain.brain)
    np.testing.assert_allclose(scored.image, plain.image, atol=atol)
    back = np.array(scored.record["intensity_range"]) * sd + mean
    np.testing.assert_allclose(back, plain.record["intensity_range"], atol=5)


def test_standardised_scans_share_their_deciles():
    data, brain, affine = made_brain()
    config = NormaliseConfig(landmarks=(0.2, 0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8))
    scans = [made_volume(values, affine) for values in (data, data**1.7)]
    standardised = [prepare_scan(scan, brain, None, None, config) for scan in scans]
    for prepared in standardised:
        deciles = compute_deciles(prepared.image, prepared.brain)
        np.testing.assert_allclose(deciles, config.landmarks, atol=0.01)
        assert not prepared.image[~prepared.brain].any()
    plain = [prepare_scan(scan, brain) for scan in scans]
    apart = [np.abs(a.image - b.image).mean() for a, b in (standardised, plain)]
    assert apart[0] < 0.3 * apart[1]


def test_single_slice():
    data, _, affine = made_brain()
    prepared = prepare_scan(made_volume(data[:, :, 25:26], affine))
    assert prepared.image.shape == (96, 96, 1) and 1 < prepared.image.max() < CEILING


def test_surroundings_do_not_bleed_into_the_brain():
    data, brain, affine = made_brain((136, 136, 100), (1.0, 1.0, 1.0))
    stripped = prepare_scan(made_volume(data, affine), brain)
    with_skull = prepare_scan(made_volume(np.where(brain, data, 5000), affine), brain)
    np.testing.assert_array_equal(with_skull.image, stripped.image)


def test_orientation_on_disk_does_not_matter(tmp_path):
    data, _, affine = made_brain((50, 64, 60), (2.0, 2.0, 1.5))
    images = [
        prepare_scan(read_nifti(save(tmp_path / f"{axes}.nii.gz", data, affine, axes))).image
        for axes in ("RAS", "LAS", "PSR")
    ]
    np.testing.assert_array_equal(images[0], images[1])
    np.testing.assert_array_equal(images[0], images[2])


def test_sizes_saturation_and_lesions_out_of_range_are_flagged():
    data, brain, affine = made_brain()
    small = prepare_scan(made_volume(data, affine), brain)
    assert small.record["flags"] == ["brain volume out of 800 to 2200 ml"]
    lesion = ball(data.shape, affine, (60, 0, 0), 20)  # mostly outside the brain
    assert prepare_scan(made_volume(data, affine), brain, lesion).record["flags"] == [
        "brain volume out of 800 to 2200 ml",
        "most of the lesion is outside the brain mask",
    ]
    bright = np.where(ball(data.shape, affine, (0, 0, 0), 40) & brain, 200, data * 0.5)
    saturated = prepare_scan(made_volume(bright, affine), brain)
    assert "many saturated voxels" in saturated.record["flags"]
    config = NormaliseConfig(high_percentile=90)  # a tenth of any brain is above it
    plain = prepare_scan(made_volume(data, affine), brain, None, None, config)
    assert "many saturated voxels" not in plain.record["flags"]


def test_no_brain_on_the_grid():
    data, brain, affine = made_brain()
    speck = np.zeros_like(brain)
    speck[20:40:19, 20:40:19, 25] = True  # less than half of every cell
    with pytest.raises(InputError, match=r"scan\.nii\.gz: no brain is left on the model's grid"):
        prepare_scan(made_volume(data, affine @ np.diag([0.5, 0.5, 0.5, 1.0])), speck)
