"""Models as repositories of the Hugging Face Hub."""

import os
import shutil
import sys
import types

import pytest
import torch

from helpers.runs import ABOUT
from maediff.core.errors import InputError
from maediff.models.hub import load_from_hub, save_to_hub_folder
from maediff.models.model import read_model


def test_a_hub_folder_has_a_card_with_front_matter_and_loads(models, tmp_path):
    folder = save_to_hub_folder("flair-lgg", tmp_path / "repo")
    assert {"model.safetensors", "config.json", "README.md"} <= {p.name for p in folder.iterdir()}
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\nlicense: apache-2.0\nlibrary_name: maediff\n")
    assert "# flair-lgg" in text
    model = load_from_hub(folder)
    assert model.name == "repo"
    for key, value in read_model("flair-lgg").method.state_dict().items():
        assert torch.equal(value, model.method.state_dict()[key])
    run = models.parent / "runs" / "t1"
    with pytest.raises(InputError, match="has no card"):
        save_to_hub_folder(run, tmp_path / "other")
    save_to_hub_folder(run, tmp_path / "other", ABOUT | {"licence": "Our own"})
    assert load_from_hub(tmp_path / "other").method
    text = (tmp_path / "other" / "README.md").read_text(encoding="utf-8")
    assert "license_name: Our own" in text
    with pytest.raises(InputError, match="exists"):
        save_to_hub_folder("t1", tmp_path / "other")


def test_files_have_the_permissions_of_the_umask(models, tmp_path):
    source = shutil.copytree(models / "t1", tmp_path / "t1")
    (source / "model.safetensors").chmod(0o600)
    before = os.umask(0o027)
    try:
        save_to_hub_folder(source, tmp_path / "repo")
    finally:
        os.umask(before)
    modes = {oct(path.stat().st_mode & 0o777) for path in (tmp_path / "repo").iterdir()}
    assert modes == {"0o640"}


def test_a_repository_is_a_model(models, tmp_path, monkeypatch):
    folder = save_to_hub_folder("t1", tmp_path / "0123abc")
    requests = []

    def snapshot_download(repository, allow_patterns):
        requests.append((repository, allow_patterns))
        if repository != "lab/brains":
            raise OSError("404 not found\nmore")
        return str(folder)

    hub = types.ModuleType("huggingface_hub")
    hub.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    model = read_model("hf:lab/brains@t_test=125")
    assert model.method.config.t_test == (125,)
    assert model.name == "brains@t_test=125"
    assert load_from_hub("lab/brains").name == "brains"
    assert len(requests) == 1  # once per process: weights and settings are of one revision
    patterns = requests[0][1]
    assert not any("pt" in pattern or "bin" in pattern for pattern in patterns)  # no pickle
    with pytest.raises(
        InputError, match=r"hf:lab/none: could not be downloaded .*\(404 not found\)"
    ):
        read_model("hf:lab/none")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"pip install huggingface_hub"):
        read_model("hf:lab/other")
