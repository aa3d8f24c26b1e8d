"""Stages are summed by name, and cost nothing if nobody records."""

import time

import pytest

from maediff.core.stages import record_stages, stage


def spend(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_calls_of_a_stage_are_summed():
    with record_stages() as seconds:
        for _ in range(2):
            with stage("read"):
                spend(0.02)
        with stage("network"):
            spend(0.01)
    assert list(seconds) == ["read", "network"]
    assert seconds["read"].cpu >= 0.04 and seconds["read"].wall >= 0.04
    assert seconds["network"].cpu >= 0.01


def test_a_stage_that_fails_counts_and_the_error_passes():
    with record_stages() as seconds, pytest.raises(ValueError, match="reason"), stage("read"):
        raise ValueError("reason")
    assert seconds["read"].wall > 0


def test_nothing_is_recorded_outside():
    with record_stages() as seconds:
        pass
    with stage("read"):
        pass
    assert seconds == {}
