"""tools/learn_landmarks.py on a small cohort."""

import json

import numpy as np
import pytest

from helpers.brains import made_cohort
from helpers.scripts import load_script
from maediff.core.config import build_config, parse_settings
from maediff.preparation.intensities import NormaliseConfig

learn_landmarks = load_script("tools/learn_landmarks.py")


def test_landmarks_are_a_setting_of_preprocess(tmp_path, capsys):
    cohort = made_cohort(tmp_path)
    assert learn_landmarks.main([str(cohort)]) == 0
    option, setting = capsys.readouterr().out.strip().split(" ", 1)
    assert option == "--set"
    settings = parse_settings([setting])["normalise"]
    landmarks = build_config(NormaliseConfig, settings, "normalise").landmarks
    assert len(landmarks) == 9
    assert (np.diff(landmarks) > 0).all()

    path = cohort / "cohort.json"
    meta = json.loads(path.read_text("utf-8"))
    meta["normalise"] = {"landmarks": landmarks}
    path.write_text(json.dumps(meta))
    with pytest.raises(SystemExit, match="2"):
        learn_landmarks.main([str(cohort)])
    (line,) = capsys.readouterr().err.splitlines()
    assert "was made with normalise.landmarks" in line


def test_what_is_no_cohort_is_refused_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        learn_landmarks.main([str(tmp_path)])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path}")
