"""Files of a model's folder besides the weights and the calibration.

    RUN/config.json            method, preset, all resolved settings, seed, and the preparation and
                               the hash of the cohort; a model is rebuilt from it
    RUN/provenance.json        versions, commit and machine
    RUN/train_subjects.json    codes of the people trained on, so that none of them is scored

A shipped model's folder holds config.json and train_subjects.json.
No file contains the path of the cohort or the time limit of the training.
"""

import json
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from maediff import __version__
from maediff.core.errors import InputError
from maediff.core.files import read_json, write_json
from maediff.core.reading import is_file
from maediff.core.types import CEILING
from maediff.methods.base import Method
from maediff.methods.registry import METHODS, resolve
from maediff.models.catalogue import model_folders
from maediff.models.reference import split_mean, split_reference
from maediff.preparation.config import SHARED

FORMAT = "maediff-1"  # of config.json and of files of weights
NEEDED = {
    "method": str,
    "config": dict,
    "preset": str,
    "seed": int,
    "train": dict,
    "cohort": dict,
    "cohort.modality": str,
    "cohort.grid": dict,
    "cohort.normalise": dict,
}
TRAINED_ON = "train_subjects.json"
PICKLES = {".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin"}
MOVED = ("smooth_sigma", "times_intensity")
"""Settings of post-processing that older versions stored in a method's config."""


def read_config(run: Path) -> dict[str, Any]:
    """Read RUN/config.json; fields that an older version did not store have their defaults.

    Raises:
        InputError: not a run folder, or a run of another version.
    """
    record = read_record(run)
    return {**record, "config": completed_config(run, record)}


def completed_config(run: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the complete settings of a run's method.

    Args:
        run: the folder, for messages.
        record: from `read_record`.

    Raises:
        InputError: a setting that this version does not know.
    """
    try:
        return complete(record, record["config"])
    except InputError as error:
        raise InputError(
            f"{run / 'config.json'}: {error}; train the model again with this version of maediff"
        ) from None


def read_record(run: Path) -> dict[str, Any]:
    """Read RUN/config.json without completing it, and check that it describes a run.

    Raises:
        InputError: not a run folder, or a run of another version.
    """
    path = run / "config.json"
    if run.suffix in PICKLES:
        raise InputError(
            f"{run}: looks like a pickle, which could run code; give a run folder of "
            "`maediff train`"
        )
    if not is_file(path):
        known = ", ".join(model_folders()) or "none"
        raise InputError(
            f"{run}: is not a run folder (no config.json there), nor the name of a model (there "
            f"are: {known}); make a run with `maediff train`"
        )
    record = read_json(path, remedy="train the model again")
    if record.get("format") != FORMAT:
        raise InputError(
            f"{path}: not of format {FORMAT!r}; train the model again with this version of maediff"
        )
    cohort = record.get("cohort")
    entries = dict(record)
    if isinstance(cohort, dict):
        entries |= {f"cohort.{key}": value for key, value in cohort.items()}
    if missing := [key for key, kind in NEEDED.items() if not isinstance(entries.get(key), kind)]:
        raise InputError(f"{path}: {', '.join(missing)} missing or damaged; train the model again")
    if record["method"] not in METHODS:
        raise InputError(
            f"{path}: method {record['method']!r} is not known: one of {', '.join(METHODS)}"
        )
    return dict(record)


def complete(run: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Complete the settings of a method that an older version stored.

    Missing fields get the default of the class, not the preset's, so old runs behave as before.
    The settings in `MOVED` are removed; `first_steps` returns them.

    Args:
        run: config.json, for the name of the method.
        config: stored settings of the method.
    """
    kept = {key: value for key, value in config.items() if key not in MOVED}
    return plain(resolve(run["method"], settings=kept))


def first_steps(run: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, float]:
    """Return the fields of `PostprocessConfig` that replace the settings in `MOVED`.

    Args:
        run: config.json, for the pixel size of the model's grid.
        config: stored settings of the method.

    Returns:
        Values by field; empty if the settings in `MOVED` were off.
    """
    sigma, power = (float(config.get(key) or 0) for key in MOVED)
    steps = {}
    if sigma:
        steps["first_smooth_mm"] = sigma * float(run["cohort"]["grid"].get("spacing_mm", 2.0))
    if power:
        steps |= {
            "first_power": power,
            "first_ceiling": CEILING if config.get("headroom") else 1.0,
        }
    return steps


def trained_on(folder: Path) -> list[str]:
    """Return the codes of the people that a model learned from, its initial model included.

    Args:
        folder: run folder, or folder of a shipped model.

    Returns:
        Codes (`cohort.person_code`); empty if the folder has no train_subjects.json.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / TRAINED_ON
    if not is_file(path):
        return []
    remedy = "train again, because the people that the run learned from are unknown"
    return [str(code) for code in read_json(path, list, remedy=remedy)]


def config_of(method: Method) -> dict[str, Any]:
    """Return the complete settings of a method as plain values."""
    return plain(method.config)


def plain(config: Any) -> dict[str, Any]:
    """Return a config as JSON would: nested mappings, and lists for tuples."""
    return json.loads(json.dumps(asdict(config)))  # type: ignore[no-any-return]


def provenance(**more: Any) -> dict[str, Any]:
    """Return versions, commit and machine, for provenance.json.

    Args:
        more: further entries.
    """
    packages = ("torch", "numpy", "scipy", "lightning-fabric", "nibabel")
    root = Path(__file__).parents[3]
    commit = ""
    is_checkout = (root / "pyproject.toml").is_file() and (root / ".git").exists()
    if is_checkout and shutil.which("git"):
        command = ["git", "-C", str(root), "rev-parse", "HEAD"]
        commit = subprocess.run(
            command, capture_output=True, text=True, check=False
        ).stdout.strip()
    return {
        "maediff": __version__,
        "commit": commit or None,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in packages},
        **more,
    }


def write_config(run: Path, config: dict[str, Any]) -> None:
    """Write RUN/config.json."""
    write_json(run / "config.json", {"format": FORMAT, **config})


def prepared_for(reference: str | Path) -> dict[str, Any]:
    """Return the preparation of a model's scans, as settings of `maediff preprocess`.

    A step that the model does not record was disabled.

    Args:
        reference: see `models.model.read_model`.

    Raises:
        InputError: a mean of models, or not a model (see `read_config`).
    """
    if len(split_mean(reference)) > 1:
        raise InputError(f"{reference}: a mean of models; name one of them")
    cohort = read_config(split_reference(reference)[0])["cohort"]
    return {key: cohort.get(key) or {"enabled": False} for key in SHARED}
