"""Three exported models, a cohort and a calibrated run for the tests of this folder."""

import shutil

import pytest

from helpers.brains import made_cohort
from helpers.runs import ABOUT, made_run
from maediff.cohort.cohort import Cohort
from maediff.models import catalogue
from maediff.models.calibrate import calibrate_folder
from maediff.models.card import show_terms
from maediff.models.export import export_model


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Folder of models: t1 and flair can be picked by contrast, flair-lgg only by name."""
    folder = tmp_path_factory.mktemp("models")
    for name, modality, more in (
        ("t1", "T1w", {}),
        ("flair", "FLAIR", {}),
        ("flair-lgg", "FLAIR", {"opt_in": True, "terms": "CC BY-NC-SA 4.0, research only."}),
    ):
        run = made_run(folder / "runs" / name, modality)
        export_model(run, folder / "models" / name, ABOUT | more)
    return folder / "models"


@pytest.fixture
def models(exported, monkeypatch, tmp_path):
    """The exported models, as the only ones that can be found."""
    monkeypatch.setattr(catalogue, "PACKAGED", tmp_path / "none")
    monkeypatch.setattr(catalogue, "CHECKOUT", tmp_path / "none")
    monkeypatch.setenv("MAEDIFF_MODELS", str(exported))
    show_terms.cache_clear()
    return exported


@pytest.fixture
def no_models(models, monkeypatch):
    """No model can be found."""
    monkeypatch.setenv("MAEDIFF_MODELS", "")


@pytest.fixture(scope="session")
def cohort(tmp_path_factory):
    """A small cohort: one healthy scan in its val split, two healthy people outside of train."""
    return Cohort.open(made_cohort(tmp_path_factory.mktemp("cohort")))


@pytest.fixture(scope="session")
def calibrated(cohort, tmp_path_factory):
    """A run with random weights, calibrated on `cohort`."""
    run = made_run(tmp_path_factory.mktemp("calibrated") / "run")
    calibrate_folder(run, cohort)
    return run


@pytest.fixture
def run(calibrated, tmp_path):
    """A copy of `calibrated` to change."""
    return shutil.copytree(calibrated, tmp_path / "run")
