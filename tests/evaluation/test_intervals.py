"""Intervals against closed forms and known tables."""

import math

import numpy as np
import pytest

from maediff.evaluation.intervals import bootstrap_interval, clopper_pearson, paired_difference


def test_clopper_pearson_known_values():
    # closed forms at the ends: 1 - (alpha / 2)^(1/n); 3 of 10 is in every table: 0.0667 to 0.6525
    none, some, every = (clopper_pearson(k, 10) for k in (0, 3, 10))
    assert (none.mean, none.low) == (0, 0)
    assert none.high == pytest.approx(1 - 0.025**0.1)
    assert (some.low, some.high) == pytest.approx((0.06674, 0.65245), abs=1e-5)
    assert (every.high, every.low) == (1, pytest.approx(0.025**0.1))


def test_clopper_pearson_without_trials():
    assert math.isnan(clopper_pearson(0, 0).mean)


def test_bootstrap_is_close_to_normal_interval():
    values = np.random.default_rng(0).normal(0.5, 0.1, 100)
    interval = bootstrap_interval(values, seed=0)
    assert interval == bootstrap_interval(values, seed=0)
    assert interval.mean == pytest.approx(values.mean())
    half = 1.96 * values.std() / 10
    assert (interval.low, interval.high) == pytest.approx(
        (values.mean() - half, values.mean() + half), abs=0.004
    )
    assert bootstrap_interval([*values, math.nan]).mean == pytest.approx(values.mean())


def test_bootstrap_of_few_values():
    assert math.isnan(bootstrap_interval([]).mean)
    single = bootstrap_interval([0.3])
    assert single.mean == 0.3
    assert math.isnan(single.low)
    assert single.as_dict() == {"mean": 0.3, "low": None, "high": None}


def test_pairing_removes_shared_variation():
    rng = np.random.default_rng(0)
    hard = rng.random(40)  # how hard a subject is, the same for both
    a, b = hard + 0.02 + 0.005 * rng.standard_normal(40), hard
    difference = paired_difference(a, b)
    assert 0 < difference.low < 0.02 < difference.high < 0.03
    assert bootstrap_interval(a).low < bootstrap_interval(b).mean  # unpaired, they overlap
    assert paired_difference([1.0, math.nan, 3.0], [0.0, 5.0, 1.0]).mean == 1.5
