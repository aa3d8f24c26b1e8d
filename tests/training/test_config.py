"""Training settings: the learning rate and durations."""

import pytest

from maediff.core.errors import InputError
from maediff.training.config import TrainConfig, learning_rate, parse_duration


def test_learning_rate_warms_up_and_falls_to_zero():
    config = TrainConfig(steps=100, learning_rate=1.0, schedule="cosine", warmup_steps=10)
    assert learning_rate(config, 0) == pytest.approx(0.1)
    assert learning_rate(config, 50) == pytest.approx(0.5)
    assert learning_rate(config, 99) < 0.001
    assert learning_rate(TrainConfig(learning_rate=2.0), 12345) == 2.0


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("1.5h", 5400),
        (600, 600),
        (0.5, 0.5),
        (1e-5, 1e-5),
        (None, None),
    ],
)
def test_durations_have_units(duration, seconds):
    assert parse_duration(duration) == seconds


@pytest.mark.parametrize("wrong", ["ten minutes", "", "5", "600", -1, -0.5, float("nan")])
def test_a_duration_of_another_form_is_refused(wrong):
    with pytest.raises(InputError, match=r"`max_time=.*`: write a duration like"):
        parse_duration(wrong)
