"""The schedule against its closed form and diffusers; the reverse process on Gaussian data."""

import math

import pytest
import torch

from maediff.diffusion.process import cosine_alpha_bar, forward_process, reverse_chain


def test_the_schedule_equals_its_closed_form_except_for_the_clipped_beta():
    alpha_bar = cosine_alpha_bar()
    f = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(1001)]
    closed = torch.tensor(f[1:], dtype=torch.float64) / f[0]
    # Only the last beta is clipped.
    torch.testing.assert_close(alpha_bar[:-1], closed[:-1], rtol=1e-9, atol=0)
    assert alpha_bar[-1] == pytest.approx(float(alpha_bar[-2]) * 0.001)
    assert round(float(alpha_bar[499]), 3) == 0.494
    assert (alpha_bar.diff() < 0).all()


@pytest.mark.filterwarnings("ignore")  # warnings of diffusers
def test_schedule_equals_that_of_diffusers():
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDPMScheduler(
        num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2"
    ).alphas_cumprod
    torch.testing.assert_close(cosine_alpha_bar().float(), theirs, rtol=1e-4, atol=1e-7)


def test_forward_process_by_hand():
    x0, eps = torch.full((1, 1, 1, 1), 0.5), torch.full((1, 1, 1, 1), -1.0)
    x_t = forward_process(x0, eps, torch.tensor([0.64], dtype=torch.float64))
    assert float(x_t) == pytest.approx(0.8 * 0.5 - 0.6)


def gaussian_denoiser(mean, sd, alpha_bar):
    """Return the ideal denoiser E[x0 | x_t] for x0 ~ N(mean, sd^2)."""

    def denoise(x, t):
        a = alpha_bar[t[0]]
        gain = a.sqrt() * sd**2 / (a * sd**2 + 1 - a)
        return mean + gain * (x - a.sqrt() * mean)

    return denoise


def test_the_chain_recovers_gaussian_data_with_its_ideal_denoiser():
    alpha_bar, generator = cosine_alpha_bar(), torch.Generator().manual_seed(0)
    x_t = torch.randn(20_000, 1, 1, 1, generator=generator, dtype=torch.float64)
    x0 = reverse_chain(gaussian_denoiser(0.3, 0.2, alpha_bar), x_t, range(999, -1, -1), alpha_bar)
    assert float(x0.mean()) == pytest.approx(0.3, abs=0.01)
    assert float(x0.std()) == pytest.approx(0.2, rel=0.03)


def test_ddim_follows_the_closed_form_of_its_flow():
    """For Gaussian data, DDIM scales x_t - sqrt(a) mean to the sd of the data."""
    alpha_bar = cosine_alpha_bar()
    a = float(alpha_bar[700])
    mean, sd = -0.2, 0.5
    x_t = torch.tensor([0.9], dtype=torch.float64).view(1, 1, 1, 1)
    x0 = reverse_chain(gaussian_denoiser(mean, sd, alpha_bar), x_t, range(700, -1, -1), alpha_bar)
    expected = mean + sd * (0.9 - math.sqrt(a) * mean) / math.sqrt(a * sd**2 + 1 - a)
    assert float(x0) == pytest.approx(expected, abs=2e-3)


def test_a_step_with_eta_1_samples_the_posterior_of_ho_et_al():
    """Mean and variance are those of q(x_{t-1} | x_t, x0), Ho et al. 2020, eq. 7."""
    alpha_bar, x0, z = cosine_alpha_bar(), 0.3, 1.7
    x_t = torch.full((1, 1, 1, 1), -0.7, dtype=torch.float64)
    a, a_next = float(alpha_bar[250]), float(alpha_bar[249])
    beta = 1 - a / a_next
    mean = (
        math.sqrt(a_next) * beta / (1 - a) * x0
        + math.sqrt(1 - beta) * (1 - a_next) / (1 - a) * -0.7
    )
    sd = math.sqrt((1 - a_next) / (1 - a) * beta)
    seen, asked = [], []

    def denoise(x, t):
        seen.append(float(x))
        return torch.full_like(x, x0)

    def fresh(step):
        asked.append(step)
        return torch.full_like(x_t, z)

    reverse_chain(denoise, x_t, [250, 249], alpha_bar, eta=1.0, fresh=fresh)
    assert seen == [-0.7, pytest.approx(mean + sd * z, rel=1e-9)]
    assert asked == [1]
    with pytest.raises(ValueError, match=r"eta=1\.0 needs `fresh`"):
        reverse_chain(denoise, x_t, [250, 249], alpha_bar, eta=1.0)


def test_a_chain_with_fresh_noise_recovers_gaussian_data_too():
    alpha_bar, generator = cosine_alpha_bar(), torch.Generator().manual_seed(0)

    def draw(step):
        return torch.randn(20_000, 1, 1, 1, generator=generator, dtype=torch.float64)

    x0 = reverse_chain(
        gaussian_denoiser(0.3, 0.2, alpha_bar), draw(0), range(999, -1, -1), alpha_bar, 1.0, draw
    )
    assert float(x0.mean()) == pytest.approx(0.3, abs=0.01)
    assert float(x0.std()) == pytest.approx(0.2, rel=0.03)


def test_one_time_step_is_the_one_step_prediction():
    x = torch.rand(2, 1, 4, 4)
    y = reverse_chain(lambda x, t: x * t[:, None, None, None], x, [250], cosine_alpha_bar())
    torch.testing.assert_close(y, 250 * x)


@pytest.mark.parametrize("timesteps", [[], [5, 5], [1, 2], [1000], [3, -1]])
def test_wrong_time_steps_are_refused(timesteps):
    with pytest.raises(ValueError, match="timesteps"):
        reverse_chain(lambda x, t: x, torch.zeros(1, 1, 1, 1), timesteps, cosine_alpha_bar())
