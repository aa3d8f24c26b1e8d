"""Comparison of a slice with its reference: SSIM against scikit-image, the rest by hand."""

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from maediff.core.errors import InputError
from maediff.methods.registry import build
from maediff.methods.residual import (
    ComparisonConfig,
    masked_blur,
    reconstruction_loss,
    residual_of,
    ssim,
)


def images(seed, b=2, size=24):
    return torch.rand(b, 1, size, size, generator=torch.Generator().manual_seed(seed))


def everywhere(x):
    return torch.ones_like(x, dtype=torch.bool)


def test_ssim_equals_that_of_scikit_image_for_whole_windows():
    a, b = images(0), images(1) * 0.3 + images(0) * 0.7
    similarities = ssim(a.double(), b.double(), everywhere(a), data_range=1.0)
    for one, other, similarity in zip(a, b, similarities, strict=True):
        _, expected = structural_similarity(
            one[0].double().numpy(),
            other[0].double().numpy(),
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )
        np.testing.assert_allclose(similarity[0, 5:-5, 5:-5], expected[5:-5, 5:-5], atol=1e-6)
    torch.testing.assert_close(ssim(a, a, everywhere(a)), torch.ones_like(a))


def test_ssim_uses_pixels_inside_the_mask_only():
    a, b, mask = images(0), images(1), torch.zeros(2, 1, 24, 24, dtype=torch.bool)
    mask[..., 5:17, 3:20] = True
    changed = torch.where(mask, b, 1 - b)
    inside, same = ssim(a, b, mask)[mask], ssim(a, changed, mask)[mask]
    torch.testing.assert_close(inside, same)
    assert inside.isfinite().all()
    assert (inside < 0.9).any()


def test_a_masked_blur_of_a_constant_is_the_constant_up_to_the_border():
    mask = torch.zeros(1, 1, 24, 24, dtype=torch.bool)
    mask[..., 4:11, 2:23] = True
    blurred = masked_blur(torch.where(mask, 0.3, 9.0), mask, sigma=4.0)
    torch.testing.assert_close(blurred[mask], torch.full_like(blurred[mask], 0.3))


def test_losses_by_hand_and_the_gradient_of_ssim():
    x0, mask = 2 * images(0) - 1, torch.zeros(2, 1, 24, 24, dtype=torch.bool)
    mask[..., 8:20, 8:20] = True
    off = torch.where(mask, x0 + 0.5, 99.0).requires_grad_()
    assert reconstruction_loss(off, x0, mask, "l1").item() == pytest.approx(0.5, rel=1e-5)
    assert reconstruction_loss(off, x0, mask, "l2").item() == pytest.approx(0.25, rel=1e-5)
    mixed = reconstruction_loss(off, x0, mask, "l1_ssim")
    similarity = ssim(off, x0, mask, data_range=2.0)[mask].mean()
    torch.testing.assert_close(mixed, 0.5 + 1 - similarity)
    mixed.backward()
    assert off.grad.isfinite().all()
    assert off.grad[mask].all()
    assert not off.grad[~mask].any()
    assert reconstruction_loss(x0, x0, mask, "l1_ssim").item() == pytest.approx(0, abs=1e-5)


def test_l1_is_the_mean_over_the_mask_to_the_bit():
    """Runs from before `loss` was a setting keep their numbers."""
    x0, prediction = images(0), images(1)
    mask = images(2) > 0.6
    before = ((prediction.float() - x0).abs() * mask).sum() / mask.sum()
    assert torch.equal(reconstruction_loss(prediction, x0, mask), before)


def test_defaults_of_the_residual_are_the_absolute_difference_to_the_bit():
    x, reference = images(0), images(1)
    assert torch.equal(
        residual_of(x, reference, x > 0, ComparisonConfig()), (x - reference).abs().clamp(0, 1)
    )


def test_local_sigma_removes_the_shift_of_a_region_and_keeps_a_lesion():
    x = torch.full((1, 1, 60, 60), 0.5)
    reference = x.clone()
    reference[..., 30:] -= 0.2  # reconstructed too dark on one side
    x[..., 10:14, 40:44] += 0.4
    plain, local = (
        residual_of(
            x, reference, everywhere(x), ComparisonConfig(residual="bright", local_sigma=sigma)
        )
        for sigma in (0, 6)
    )
    assert plain[0, 0, 45, 52].item() == pytest.approx(0.2)
    assert local[0, 0, 45, 52].item() < 0.02
    assert local[0, 0, 11, 41].item() > 0.3


def test_ssim_has_its_weight_in_the_residual_and_respects_the_sign():
    x, reference = images(0), images(1)
    brain = everywhere(x)
    unlike = (1 - ssim(x.double(), reference.double(), brain).float()) / 2
    mixed = residual_of(x, reference, brain, ComparisonConfig(ssim_weight=0.25))
    torch.testing.assert_close(mixed, 0.75 * (x - reference).abs() + 0.25 * unlike)
    torch.testing.assert_close(
        residual_of(x, reference, brain, ComparisonConfig(ssim_weight=1)), unlike
    )
    bright = residual_of(
        x, reference, brain, ComparisonConfig(ssim_weight=0.25, residual="bright")
    )
    assert not bright[x <= reference].any()
    torch.testing.assert_close(bright[x > reference], mixed[x > reference])


@pytest.mark.parametrize("name", ["maediff", "ddpm", "vae", "dae", "fanogan"])
def test_all_methods_accept_the_settings_and_refuse_wrong_values(name):
    config = build(name, "tiny", {"local_sigma": 8, "ssim_weight": 0.3, "loss": "l1_ssim"}).config
    assert (config.local_sigma, config.ssim_weight, config.loss) == (8, 0.3, "l1_ssim")
    for key, value in [
        ("ssim_weight", 1.1),
        ("local_sigma", -1),
        ("loss", "l3"),
        ("size", 2000),
    ]:
        with pytest.raises(InputError, match=key):
            build(name, "tiny", {key: value})


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("maediff", {"steps": 10**9}),
        ("maediff", {"unet": {"channels": [64, 10**6]}}),
        ("maediff", {"mae": {"dim": 10**8}}),
        ("ddpm", {"draws": 20000}),
        ("vae", {"latent": 10**7}),
    ],
)
def test_numbers_that_fill_the_memory_are_refused(name, settings):
    with pytest.raises(InputError, match="must be 10000 at most"):
        build(name, "tiny", settings)
