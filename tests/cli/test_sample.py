"""`maediff detect --sample`, and the sample that comes with the package."""

import json

import nibabel as nib
import numpy as np
import pytest

import maediff as maediff_api
from helpers.cli import call_maediff
from helpers.runs import made_run
from helpers.scripts import load_script
from maediff.core.errors import InputError
from maediff.synthetic.sample import CONTRASTS, find_sample, make_sample_brain


def test_the_sample_is_one_small_brain_in_both_contrasts():
    images = [nib.load(find_sample(contrast)) for contrast in CONTRASTS]
    brains = [image.get_fdata() > 0 for image in images]
    np.testing.assert_array_equal(images[0].affine, images[1].affine)
    assert images[0].shape == (80, 100, 40) and (brains[0] == brains[1]).mean() > 0.99
    folder = find_sample().parent
    assert sum(path.stat().st_size for path in folder.glob("*.nii.gz")) < 2_000_000
    assert "synthetic" in (folder / "README.md").read_text("utf-8")
    with pytest.raises(InputError, match="the sample is FLAIR or T1w"):
        find_sample("T2w")


@pytest.mark.slow
def test_the_script_makes_the_sample_again(tmp_path):
    for path in load_script("tools/make_sample.py").write_sample(tmp_path):
        made, shipped = (
            nib.load(folder / path.name).get_fdata() for folder in (tmp_path, find_sample().parent)
        )
        # Other versions of numpy and scipy round differently.
        np.testing.assert_allclose(made, shipped, atol=2)


@pytest.mark.slow
def test_flair_detects_the_lesion_and_nothing_in_the_healthy_brain():
    detector = maediff_api.load("flair", device="cpu")
    for healthy in (False, True):
        brain = make_sample_brain("FLAIR", healthy=healthy)
        result = detector.detect(brain.image, affine=brain.affine, brain_mask=brain.brain)
        assert bool(result.regions) != healthy
        if not healthy:
            assert (result.anomaly_mask & brain.lesion).sum() > 0.5 * brain.lesion.sum()


def test_detect_in_the_sample(tmp_path):
    run = made_run(tmp_path / "run", "FLAIR")
    arguments = ("detect", "--sample", "--model", run, "--device", "cpu", "-q")
    result = call_maediff(*arguments, "-o", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    summary = json.loads((tmp_path / "out" / "sub-sample" / "summary.json").read_text("utf-8"))
    assert summary["modality"] == "FLAIR"
    refused = call_maediff(*arguments, "scan.nii.gz", "-o", tmp_path / "no")
    assert refused.returncode == 2 and "--sample and scan.nii.gz" in refused.stderr
