"""What a run folder says of its model, beside the weights (`checkpoint`): settings, origin, whom it learned from.

    RUN/config.json            method, preset, every resolved setting, seed, the cohort by its hash: what a model is
                               rebuilt from. The cohort's path and the time limit stand in no file
    RUN/provenance.json        versions, commit and machine
    RUN/train_subjects.json    codes of the people trained on, so that nobody of them is scored

A shipped model's folder holds the first and the last of them.
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
from maediff.core.types import CEILING
from maediff.methods.base import Method
from maediff.methods.registry import METHODS, resolve
from maediff.models.catalogue import model_folders
from maediff.models.reference import split_mean, split_reference
from maediff.preparation.config import PREPARED

FORMAT = "maediff-1"  # of config.json and of the files of weights
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


def read_config(run: Path) -> dict[str, Any]:
    """Read RUN/config.json; fields of the method that are younger than the run have their defaults.

    Raises:
        InputError: not a run folder, or of another version.
    """
    record = read_record(run)
    return {**record, "config": completed_config(run, record)}


def completed_config(run: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the complete method config of a run.

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
    """Read RUN/config.json as it is, and check that it describes a run.

    Raises:
        InputError: not a run folder, or of another version.
    """
    path = run / "config.json"
    if run.suffix in PICKLES:
        raise InputError(
            f"{run}: looks like a pickle, which could run code; give a run folder of `maediff train`"
        )
    if not path.is_file():
        known = ", ".join(model_folders()) or "none"
        raise InputError(
            f"{run}: is not a run folder (no config.json there), nor the name of a model (there are: {known}); make a "
            "run with `maediff train`"
        )
    config = read_json(path, remedy="train the model again")
    if config.get("format") != FORMAT:
        raise InputError(
            f"{path}: not of format {FORMAT!r}; train the model again with this version of maediff"
        )
    cohort = config.get("cohort")
    found = config | {
        f"cohort.{key}": value
        for key, value in (cohort if isinstance(cohort, dict) else {}).items()
    }
    if missing := [key for key, kind in NEEDED.items() if not isinstance(found.get(key), kind)]:
        raise InputError(f"{path}: {', '.join(missing)} missing or damaged; train the model again")
    if config["method"] not in METHODS:
        raise InputError(
            f"{path}: method {config['method']!r} is not known: one of {', '.join(METHODS)}"
        )
    return dict(config)


def complete(run: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Complete a method's config that an older version stored.

    A field that it lacks gets the default of the class, not the preset's, so old runs behave as before. The settings
    in `MOVED` are dropped: `first_steps` returns them.
    """
    kept = {key: value for key, value in config.items() if key not in MOVED}
    return plain(resolve(run["method"], settings=kept))


MOVED = ("smooth_sigma", "times_intensity")
"""Settings of methods that older versions stored in a method's config. Post-processing owns them now."""


def first_steps(run: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, float]:
    """Return the fields of `PostprocessConfig` that replace the settings in `MOVED`; empty if those were off.

    Args:
        run: config.json, for the pixel size of the model's grid.
        config: a method's config as an older version stored it.
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
    """Codes of the people that a run or a shipped model learned from (`cohort.person_code`), its --init's included;
    empty where it has no word of them.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / TRAINED_ON
    if not path.is_file():
        return []
    return [
        str(code)
        for code in read_json(
            path, list, remedy="whom the run saw is not known, so train it again"
        )
    ]


def config_of(method: Method) -> dict[str, Any]:
    """The method's whole config as plain values."""
    return plain(method.config)


def plain(config: Any) -> dict[str, Any]:
    """A config as JSON gives it back: nested mappings, lists for tuples."""
    return json.loads(json.dumps(asdict(config)))  # type: ignore[no-any-return]


def provenance(**more: Any) -> dict[str, Any]:
    """Versions, commit and machine, for provenance.json."""
    packages = ("torch", "numpy", "scipy", "lightning-fabric", "nibabel")
    root = Path(__file__).parents[3]
    commit = ""
    if (
        (root / "pyproject.toml").is_file() and (root / ".git").exists() and shutil.which("git")
    ):  # our own checkout
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
    """How the scans of a model were prepared, as settings of `maediff preprocess`; a step it has no word of was off.

    Raises:
        InputError: a mean of models; see `read_config`.
    """
    if len(split_mean(reference)) > 1:
        raise InputError(f"{reference}: a mean of models; name one of them")
    cohort = read_config(split_reference(reference)[0])["cohort"]
    return {key: cohort.get(key) or {"enabled": False} for key in PREPARED}
