"""The content of a model's card, from the run's files, and its text, MODEL_CARD.md."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from maediff import __version__
from maediff.core.config import build_config, flatten
from maediff.core.errors import InputError
from maediff.core.files import read_json
from maediff.models.card import Card, read_card
from maediff.models.model import TrainedMethod, read_model
from maediff.models.thresholds import at_most

INTENDED_USE = (
    "Research on anomaly detection in brain MRI. Not a medical device: not for diagnosis, triage "
    "or treatment. A map shows what differs from the healthy brains that the model was trained "
    "on. Such differences need not be disease, and tissue without a detected anomaly need not be "
    "healthy."
)
MEASURES = (
    "auprc",
    "auprc_pooled",
    "dice",
    "dice_healthy_calibrated",
    "dice_oracle",
    "fpr_healthy",
    "scan_fpr_healthy",
    "l1_healthy",
)
"""Measures of an evaluation that the card shows."""
BESIDE_CARD = ("calibrated_on", "default_fpr", "default_threshold", "cohorts")
"""Fields of `about` in `export_model` that are no fields of the card."""
CARD_FIELDS = (
    *BESIDE_CARD,
    "summary",
    "licence",
    "data",
    "preprocessing",
    "command",
    "seeds",
    "failure_cases",
    "intended_use",
    "opt_in",
    "terms",
)
"""Fields that `about` in `export_model` may hold."""
TEST_SETTINGS = (
    "s",
    "merge",
    "refine_above",
    "t_test",
    "noise_test",
    "draws",
    "chain",
    "eta",
    "residual",
    "recentre",
    "local_sigma",
    "ssim_weight",
    "headroom",
)
"""Settings of a method that have an effect at test only."""


def make_card(
    name: str,
    model: TrainedMethod,
    about: Mapping[str, Any],
    scores: Sequence[Mapping[str, Any]],
    weights_sha256: str = "",
) -> Card:
    """Return the card of a model: the fields in `about`, and the others from the run's files.

    Args:
        name: name of the exported model.
        model: a run, or a shipped model that is exported again with other test settings. A
            shipped model keeps the training command and provenance of its card.
        about: see `export_model`.
        scores: from `read_scores`.
        weights_sha256: SHA-256 of the exported model.safetensors.

    Raises:
        InputError: a field is missing or of the wrong type (the message names all of them), or
            there is no training command.
    """
    command, provenance = read_origin(model.folder)
    settings = model.settings
    if command is None and "command" not in about:
        raise InputError(
            f"{model.folder / 'provenance.json'}: does not record the training command, because "
            "the run is of an older version; give `command` in `about`, or export with "
            "tools/export_model.py, which reconstructs it"
        )
    fields = {
        "name": name,
        "modality": settings.cohort["modality"],
        "method": settings.method,
        "preset": settings.preset,
        "preprocessing": describe_preprocessing(settings.cohort),
        "command": command,
        "seeds": [settings.seed],
        "intended_use": INTENDED_USE,
        "provenance": {**provenance, "step": model.step, "exported_with": __version__},
        "scores": list(scores),
        "weights_sha256": weights_sha256,
    }
    given = {key: value for key, value in about.items() if key not in BESIDE_CARD}
    return build_config(Card, {**fields, **given}, f"card of {name}")


def read_origin(run: Path) -> tuple[str | None, dict[str, Any]]:
    """Return the training command of a run or a shipped model, and its other provenance.

    Returns:
        The command is None if an older version of `train` made the run and did not record it.

    Raises:
        InputError: provenance.json or card.json is damaged.
    """
    path = run / "provenance.json"
    if not path.is_file() and (run / "card.json").is_file():
        card = read_card(run)
        return card.command, dict(card.provenance)
    provenance = read_json(path) if path.is_file() else {}
    command = provenance.pop("command", None)
    return command, provenance


def describe_preprocessing(cohort: Mapping[str, Any]) -> str:
    """Return the preprocessing of a model's scans in words.

    Args:
        cohort: the entry `cohort` of config.json.
    """
    grid, percentiles = cohort["grid"], cohort["normalise"]
    steps = ["Brain extracted"]
    if (cohort.get("bias") or {}).get("enabled"):
        steps.append("bias field corrected (N4)")
    if (cohort.get("registration") or {}).get("enabled"):
        steps.append("affine registration to MNI152")
        steps.append(
            f"{grid['spacing_mm']:g} mm, {grid['size']} x {grid['size']} pixels per slice"
        )
    else:
        steps.append(
            f"{grid['spacing_mm']:g} mm within the slice, {grid['size']} x {grid['size']} pixels; "
            f"slices thicker than {grid['thick_slice_mm']:g} mm keep their thickness"
        )
    steps.append(
        f"intensities in the brain scaled so that percentiles {percentiles['low_percentile']:g} "
        f"and {percentiles['high_percentile']:g} become 0 and 1 (the network sees values up to 1)"
    )
    if percentiles.get("landmarks"):
        steps.append("deciles moved to the cohort's landmarks")
    return f"{'; '.join(steps)}. `maediff preprocess` and `maediff detect` apply these steps."


def read_scores(path: Path, name: str, cohorts: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the scores of a model in an evaluation, as fields of `maediff.models.card.Scores`.

    Args:
        path: EVAL or EVAL/summary.json.
        name: the model's name in the evaluation. If it is not there, the only trained method is
            used.
        cohorts: descriptions of cohorts, by the name of their folder. A cohort without a
            description is named by its folder.

    Raises:
        InputError: `path` is not an evaluation, or it does not score this model.
    """
    path = path / "summary.json" if path.is_dir() else path
    try:
        summary = read_json(path)
        methods, baselines = summary["methods"], summary["baselines"]
    except KeyError as error:
        raise InputError(
            f"{path}: is not a summary of `maediff evaluate` (it has no {error}); give the folder "
            "of an evaluation"
        ) from None
    trained = [key for key in methods if key not in baselines]
    key = name.replace("/", "_")
    if key not in methods and len(trained) != 1:
        raise InputError(
            f"{path}: does not score {key!r} but {', '.join(trained) or 'baselines only'}; "
            "give another evaluation"
        )
    measured = methods[key if key in methods else trained[0]]
    values = {
        measure: value if isinstance(value, Mapping) else {"mean": value}
        for measure in MEASURES
        if (value := measured.get(measure)) is not None
    }
    best, folder = summary.get("best_baseline"), Path(summary["cohort"]).name
    cohort = (cohorts or {}).get(folder, folder)
    return {
        "on": f"{cohort}, {summary['score_split']} split, {summary['modality']}",
        **{count: summary[count] for count in ("n_subjects", "n_lesion", "n_healthy")},
        "values": values,
        "best_baseline": best,
        "best_baseline_auprc": methods[best]["auprc"]["mean"] if best else None,
    }


def render_card(card: Card, folder: Path) -> str:
    """Return MODEL_CARD.md: the card, the test settings and the calibration of the model.

    Args:
        card: the model's card.
        folder: the model's folder, with config.json and calibration.json.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    model, stored = read_model(folder), read_json(folder / "calibration.json")
    settings = {key: value for key, value in model.config.items() if key in TEST_SETTINGS}
    settings |= flatten({"postprocess": asdict(model.postprocess)})
    thresholds = dict(zip(stored["fprs"], stored["thresholds"], strict=True))
    _, threshold = at_most(thresholds, model.default_fpr)
    environment = Environment(  # noqa: S701 - the template is Markdown, not HTML
        loader=PackageLoader("maediff.models"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("model_card.md").render(
        card=card,
        settings=[
            f"{key}={json.dumps(value, separators=(',', ':'))}" for key, value in settings.items()
        ],
        calibration=stored,
        chosen=stored.get("default_threshold"),
        rate=f"{100 * model.default_fpr:g} %",
        threshold=threshold,
    )
    return text.rstrip() + "\n"
