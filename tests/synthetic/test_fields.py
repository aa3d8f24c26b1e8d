"""Smooth random fields."""

import numpy as np

from maediff.synthetic.fields import logistic, smooth_field


def test_smooth_field() -> None:
    rng = np.random.default_rng(0)
    fields = np.stack([smooth_field(rng, (40, 40, 40), 16.0) for _ in range(12)])
    assert abs(fields.mean()) < 0.1
    assert abs(fields.std() - 1) < 0.1
    assert np.abs(np.diff(fields, axis=1)).mean() < 0.35


def test_logistic_has_its_closed_form_without_overflow():
    np.testing.assert_allclose(logistic(np.array([0.0, 2.0])), [0.5, 1 / (1 + np.exp(-2))])
    assert np.isfinite(logistic(np.array([-1e6, 1e6]))).all()
