"""The `maediff train` command line that trains a run again, built from the run's settings.

`train` writes this line into provenance.json, and the export copies it into the model's card.
"""

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from maediff.core.config import flatten
from maediff.core.files import read_json
from maediff.methods.registry import resolve
from maediff.models.folder import complete, read_config
from maediff.models.reference import without_path
from maediff.training.config import resolve_training
from maediff.training.recommended import recommend_settings


def training_command(info: Mapping[str, Any], provenance: Mapping[str, Any] | None = None) -> str:
    """Return the `maediff train` command line that leads to the settings in `info`.

    The line names every setting that differs from the preset and the recommended settings of the
    contrast; with an initial model, which brings settings of its own, it names them all. It holds
    no path: COHORT and RUN are placeholders, and an initial model is given by its folder's name.

    Args:
        info: the run's config.json.
        provenance: the run's `step` and `wall_seconds`. If the run ended before its last step,
            `wall_seconds` becomes `--max-time`. None: the run is treated as complete.

    Raises:
        InputError: the settings do not fit this version of the method.
    """
    preset, method = info["preset"], info["method"]
    # A run of an older version has no recommended settings.
    trained = {"recommended": False, **info["train"]}
    default: dict[str, Any] = {}
    if not info.get("init"):
        modality = info["cohort"]["modality"]
        is_usual = trained["recommended"] and preset != "paper"
        usual = recommend_settings(method, modality) if is_usual else {}
        own = asdict(resolve(method, preset, usual))
        own["train"] = asdict(resolve_training(preset, {}))
        default = flatten(json.loads(json.dumps(own)))
    settings = flatten({**complete(info, info["config"]), "train": trained})
    changed = {
        key: value
        for key, value in settings.items()
        if key not in default or default[key] != value
    }
    words = ["maediff", "train", method, "--cohort", "COHORT", "-o", "RUN", "--preset", preset]
    words += ["--seed", str(info["seed"])]
    words += ["--init", str(without_path(info["init"]))] if info.get("init") else []
    if provenance and provenance["step"] < info["train"]["steps"]:
        words += ["--max-time", f"{provenance['wall_seconds']:.0f}s"]
    for key, value in changed.items():
        words += ["--set", f"{key}={json.dumps(value, separators=(',', ':'))}"]
    return shlex.join(words)


def reconstruct_command(run: Path) -> str:
    """Return the training command of a run whose provenance.json holds none (an older version).

    Raises:
        InputError: `run` is not a run folder, or one of its files is damaged.
    """
    path = run / "provenance.json"
    return training_command(read_config(run), read_json(path) if path.is_file() else None)
