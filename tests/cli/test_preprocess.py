"""`maediff preprocess`."""

import numpy as np
import pytest

from helpers.brains import made_brain, save
from helpers.cli import call_maediff
from helpers.runs import COHORT, made_run
from maediff.cohort.cohort import Cohort
from maediff.models.folder import prepared_for


def test_like_prepares_as_for_a_model_and_set_overrides_it(tmp_path):
    landmarks = [0.2, 0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8]
    normalise = {"low_percentile": 2.0, "high_percentile": 98.0, "landmarks": landmarks}
    cohort = {**COHORT, "normalise": normalise, "registration": {"enabled": False}}
    run = made_run(tmp_path / "run", cohort=cohort)
    assert prepared_for(run)["bias"] == {"enabled": False}  # not in the record
    scan = save(tmp_path / "sub-1_T1w.nii.gz", *made_brain(spacing=(2.0, 2.0, 7.0))[::2])
    arguments = ["preprocess", scan, "-o", tmp_path / "out", "--like", run]
    result = call_maediff(*arguments, "--set", "normalise.high_percentile=97")
    assert result.returncode == 0, result.stderr
    meta = Cohort.open(tmp_path / "out").meta
    assert meta["normalise"] == {**normalise, "high_percentile": 97.0}
    assert not meta["registration"]["enabled"]  # on by default
    refused = call_maediff("preprocess", scan, "-o", tmp_path / "no", "--like", tmp_path)
    assert refused.returncode == 2 and "not a run folder" in refused.stderr


def test_failed_scan_gives_exit_code_1_and_the_rest_is_done(tmp_path):
    data, _, affine = made_brain()
    save(tmp_path / "in" / "sub-1_T1w.nii.gz", data, affine)
    save(tmp_path / "in" / "sub-2_T1w.nii.gz", np.full_like(data, 3), affine)
    out = tmp_path / "cohort"
    result = call_maediff(
        "preprocess", tmp_path / "in", "-o", out, "-q", "--set", "registration.enabled=false"
    )
    assert result.returncode == 1
    assert "sub-2" in result.stderr
    assert "constant" in result.stderr
    assert (out / "sub-1" / "image.nii.gz").exists()
    assert not (out / "sub-2").exists()
    assert result.stderr.splitlines()[-1].startswith("1 failed: sub-2; 1 flagged: sub-1; see ")


@pytest.mark.slow
def test_unknown_setting_is_named_with_its_file(tmp_path):
    scan = save(tmp_path / "sub-1_T1w.nii.gz", *made_brain(shape=(20, 20, 4))[::2])
    (tmp_path / "my.yaml").write_text("nonsense: 3\n")
    for command in ("preprocess", "detect"):
        arguments = [command, scan, "-o", tmp_path / "out", "--config", tmp_path / "my.yaml"]
        result = call_maediff(*arguments)
        assert result.returncode == 2
        assert "nonsense" in result.stderr
        assert f"given in {tmp_path / 'my.yaml'}" in result.stderr
