"""A trained method as one object: its settings, its network, and means of models."""

import json
import os
import re
import shutil

import pytest
import torch

from helpers.runs import COHORT, made_run
from maediff.anomaly.postprocess import PostprocessConfig
from maediff.core.config import SettingsError
from maediff.core.errors import InputError
from maediff.core.files import write_json
from maediff.models.model import read_model
from maediff.models.weights import read_weights


def change_config(run, **cohort):
    stored = json.loads((run / "config.json").read_text("utf-8"))
    stored["cohort"] |= cohort
    (run / "config.json").write_text(json.dumps(stored))


def test_a_model_is_read_from_each_file_of_its_folder(tmp_path):
    run = made_run(tmp_path / "run", "FLAIR", cohort={**COHORT, "bias": {"enabled": True}})
    (run / "train_subjects.json").write_text('["00ff"]')
    model = read_model(run)
    assert (model.name, model.folder, model.folders) == ("run", run, [run])
    assert (model.settings.method, model.settings.preset) == ("maediff", "tiny")
    assert (model.settings.seed, model.settings.init, model.step) == (3, None, 2)
    assert model.preparation.modality == "T1w" and model.preparation.bias.enabled
    assert not model.preparation.registered
    assert model.postprocess == PostprocessConfig()
    assert model.learned_from == {"00ff"}
    assert model.card is None and model.terms == "" and model.parts == ()
    assert model.config["s"] == model.method.config.s == 48
    assert model.detects.startswith("what differs")
    assert not model.method.training
    assert model.record() == {**model.settings.record, "name": "run", "step": 2}


def test_by_name(models):
    model = read_model("t1@t_test=125")
    assert model.method.config.t_test == (125,)
    assert model.name == "t1@t_test=125"
    assert model.card.name == "t1"


def test_averaged_weights(tmp_path):
    run = made_run(tmp_path / "run")
    model = read_model(run)
    bias = model.method.unet.head.bias
    plain, _ = read_weights(run / "best" / "model.safetensors", "weights.", "maediff")
    torch.testing.assert_close(bias, plain["unet.head.bias"] + 0.25)  # `made_run` shifts it


def test_network_is_shared(tmp_path):
    """Other post-processing does not read the weights again."""
    model = read_model(made_run(tmp_path / "run"))
    changed = model.with_postprocess({"median_size": 3})
    assert changed.postprocess.median_size == 3 and model.postprocess.median_size == 5
    assert changed.method is model.method


def test_wrong_postprocessing(tmp_path):
    model = read_model(made_run(tmp_path / "run"))
    with pytest.raises(SettingsError, match="meddian_size: unknown setting"):
        model.with_postprocess({"meddian_size": 3})
    with pytest.raises(InputError, match=r"run: `?postprocess\.symmetry"):
        model.with_postprocess({"symmetry": 0.5})
    change_config(model.folder, registration={"enabled": True})
    assert read_model(model.folder).with_postprocess({"symmetry": 0.5}).postprocess.symmetry == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [("t_tset=3", "t_tset: unknown setting"), ("s=17", "17"), ("s", "not of the form KEY=VALUE")],
)
def test_wrong_settings(tmp_path, changes, message):
    run = made_run(tmp_path / "run")
    with pytest.raises(InputError, match=rf"run@{changes}: .*{message}"):
        read_model(f"{run}@{changes}")


def test_calibration_of_an_older_version(models, tmp_path):
    """A setting that did not exist yet does not invalidate the thresholds."""
    folder = shutil.copytree(models / "t1", tmp_path / "old")
    for name in ("config.json", "calibration.json"):
        stored = json.loads((folder / name).read_text(encoding="utf-8"))
        assert stored["config"].pop("merge") == "mean"
        write_json(folder / name, stored)
    assert read_model(folder).thresholds.at_fpr(0.01).residual == 0.1
    with pytest.raises(InputError, match="other settings of merge"):
        read_model(f"{folder}@merge=tapered").thresholds.at_fpr(0.01)


def test_moved_settings(tmp_path):
    """Settings of post-processing in the method's config move to post-processing."""
    run = made_run(tmp_path / "run")
    for name in ("config.json", "calibration.json"):
        stored = json.loads((run / name).read_text(encoding="utf-8"))
        stored["config"] |= {"smooth_sigma": 1.0, "times_intensity": 0.0}
        write_json(run / name, stored)
    model = read_model(run)
    assert model.postprocess == PostprocessConfig(first_smooth_mm=2.0)
    assert "smooth_sigma" not in model.config
    assert model.thresholds.at_fpr(0.01).residual == 0.1
    (run / "calibration.json").unlink()
    assert read_model(run).postprocess == PostprocessConfig(first_smooth_mm=2.0)


def test_a_mean_has_the_residual_of_its_first_model(tmp_path):
    run, other = made_run(tmp_path / "run"), made_run(tmp_path / "other+run")
    (other / "train_subjects.json").write_text('["00ff"]')
    reference = f"{run}@t_test=[60,125]+{other}@residual=bright"
    model = read_model(reference)
    assert model.name == "run@t_test=[60,125]+other+run@residual=bright"
    assert (model.settings.method, model.folders) == ("maediff+maediff", [run, other])
    assert [config.residual for config in model.method.config.methods] == ["abs", "bright"]
    assert [config["t_test"] for config in model.config["methods"]] == [[60, 125], [95]]
    assert model.detects.startswith("what differs")
    assert model.learned_from == {"00ff"}
    assert model.step == 2
    with pytest.raises(
        InputError, match="the mean of models is not calibrated; use `threshold` instead"
    ):
        model.thresholds.default()
    with pytest.raises(InputError, match=r"run\+absent.*is not a run folder"):
        read_model(f"{run}+absent")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": {"enabled": True}}, "another bias"),
        ({"modality": "T2w"}, r"another modality \(T2w\)"),
        ({"registration": {"enabled": True}}, "another registration"),
    ],
)
def test_mean_of_unlike_models(tmp_path, change, message):
    run, other = made_run(tmp_path / "run"), made_run(tmp_path / "other")
    change_config(other, **change)
    with pytest.raises(InputError, match=rf"other: trained on {message}.*have no mean"):
        read_model(f"{run}+{other}")


@pytest.mark.parametrize("changes", [{"modality": "t1w"}, {"grid": {"size": -96}}])
def test_an_impossible_preparation_names_the_file(tmp_path, changes):
    run = made_run(tmp_path / "run")
    config = json.loads((run / "config.json").read_text("utf-8"))
    (run / "config.json").write_text(json.dumps(config | {"cohort": config["cohort"] | changes}))
    with pytest.raises(InputError, match=re.escape(str(run / "config.json"))):
        read_model(run)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to(path)])
def test_weights_that_are_no_file_are_refused_without_waiting(tmp_path, make):
    run = made_run(tmp_path / "run")
    for which in ("best", "last"):
        path = run / which / "model.safetensors"
        path.unlink()
        make(path)
    with pytest.raises(InputError, match=r"a link that leads nowhere, or not a regular file"):
        _ = read_model(run).method
