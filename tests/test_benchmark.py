"""The benchmark's keys and arithmetic; its seconds are read by people, not by tests."""

import pytest

from maediff import benchmark as module
from maediff.errors import InputError


@pytest.mark.slow
def test_benchmark_gives_every_figure():
    result = module.benchmark("maediff", preset="tiny", repeats=1, device="cpu")
    assert {"scans_per_minute", "ratio_to_reference_loop", "mfu", "peak_memory_gb", "stages"} <= result.keys()
    assert {"prepare", "predict", "postprocess", "reference_loop"} <= result["stages"].keys()
    assert all(value > 0 for value in result["stages"].values())
    assert 0 < result["mfu"] < 1.5
    assert result["gflop_a_scan"] > 1


def test_methods_without_patches_are_refused():
    with pytest.raises(InputError, match="goes patch by patch"):
        module.benchmark("anoddpm", preset="tiny", device="cpu")
