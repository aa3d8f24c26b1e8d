"""The command that trained a run."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from maediff.core.config import flatten
from maediff.methods.registry import resolve
from maediff.models.folder import complete
from maediff.models.reference import without_path
from maediff.training.config import resolve_training


def training_command(info: Mapping[str, Any], provenance: Mapping[str, Any] | None = None) -> str:
    """The `maediff train` command that asks for what config.json holds: what differs from the preset's values.

    Args:
        provenance: of the run; if it ended before its last step, the seconds that it took become `--max-time`.
    """
    preset, method = info["preset"], info["method"]
    default = {**asdict(resolve(method, preset)), "train": asdict(resolve_training(preset, {}))}
    default = flatten(json.loads(json.dumps(default)))
    asked = flatten({**complete(info, info["config"]), "train": info["train"]})
    changed = {key: value for key, value in asked.items() if default.get(key) != value}
    words = ["maediff", "train", method, "--cohort", "COHORT", "-o", "RUN", "--preset", preset]
    words += ["--seed", str(info["seed"])]
    words += ["--init", str(without_path(info["init"]))] if info.get("init") else []
    if provenance and provenance["step"] < info["train"]["steps"]:
        words += ["--max-time", f"{provenance['wall_seconds']:.0f}s"]
    for key, value in changed.items():
        words += ["--set", f"{key}={json.dumps(value, separators=(',', ':'))}"]
    return shlex.join(words)
