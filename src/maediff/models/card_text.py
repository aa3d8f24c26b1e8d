"""The text of a model's card."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maediff import __version__
from maediff.core.config import build_config, flatten
from maediff.core.errors import InputError
from maediff.core.files import read_json
from maediff.models.card import Card, read_card
from maediff.models.folder import read_config
from maediff.models.operating_point import at_most, own_fpr
from maediff.preparation.config import is_registered
from maediff.training.command import training_command

INTENDED_USE = (
    "Research on anomaly detection in brain MRI. Not a medical device: not for diagnosis, triage or treatment. "
    "A map shows what differs from the healthy brains that the model knows, which need not be disease; "
    "what it does not mark is not thereby healthy."
)


SHOWN = (
    "auprc",
    "auprc_pooled",
    "dice",
    "dice_healthy_calibrated",
    "dice_oracle",
    "fpr_healthy",
    "scan_fpr_healthy",
    "l1_healthy",
)


BESIDE_CARD = (
    "calibrated_on",
    "default_fpr",
    "default_threshold",
    "cohorts",
)  # of `about`, see `export_model`


AT_TEST = (
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


GIVEN = (
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


def make_card(
    name: str,
    run: Path,
    info: Mapping[str, Any],
    about: Mapping[str, Any],
    scores: Sequence[Mapping[str, Any]],
) -> Card:
    """The card: what `about` says, and for the rest what the run's files say; of a model that is shipped already, whose
    reading of the residual changes, the training is told as its card tells it.

    Raises:
        InputError: a field is missing or of the wrong kind, all of them named.
    """
    path = run / "provenance.json"
    provenance = read_json(path) if path.is_file() else {}
    asked = {**info, "config": read_config(run)["config"]}  # before the settings at test
    command = training_command(asked, provenance)
    if not provenance and (run / "card.json").is_file():
        known = read_card(run)
        provenance, command = known.provenance, known.command
    facts = {
        "name": name,
        "modality": info["cohort"]["modality"],
        "method": info["method"],
        "preset": info["preset"],
        "preprocessing": preprocessing_of(info["cohort"]),
        "command": command,
        "seeds": [info["seed"]],
        "intended_use": INTENDED_USE,
        "provenance": {**provenance, "exported_with": __version__},
        "scores": list(scores),
    }
    told = {key: value for key, value in about.items() if key not in BESIDE_CARD}
    return build_config(Card, {**facts, **told}, f"card of {name}")


def preprocessing_of(cohort: Mapping[str, Any]) -> str:
    """What was done to the scans, in words."""
    grid, percentiles = cohort["grid"], cohort["normalise"]
    done = ["Brain extracted"]
    if (cohort.get("bias") or {}).get("enabled"):
        done.append("bias field corrected (N4)")
    if is_registered(cohort):
        done.append("affine registration to MNI152")
        slices = f"{grid['spacing_mm']:g} mm, {grid['size']} x {grid['size']} pixels a slice"
    else:
        slices = (
            f"{grid['spacing_mm']:g} mm in the slice on {grid['size']} x {grid['size']} pixels, slices thicker than "
            f"{grid['thick_slice_mm']:g} mm left as they are"
        )
    done += [
        slices,
        f"intensities in the brain scaled so that percentiles {percentiles['low_percentile']:g} and "
        f"{percentiles['high_percentile']:g} become 0 and 1 (the network sees no more than 1)",
    ]
    if percentiles.get("landmarks"):
        done.append("deciles moved to the cohort's landmarks")
    return "; ".join(done) + ". `maediff preprocess` and `maediff detect` do it."


def read_scores(path: Path, name: str, cohorts: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What an evaluation says of a model, as `shipped.Scores`.

    Args:
        path: EVAL or EVAL/summary.json.
        name: of the model in the evaluation; where it is not there, the only trained one is taken.
        cohorts: what a cohort holds, by the name of its folder; the name stands where there is no word of it.

    Raises:
        InputError: no evaluation, or not one of this model.
    """
    path = path / "summary.json" if path.is_dir() else path
    try:
        summary = read_json(path)
        methods, baselines = summary["methods"], summary["baselines"]
    except KeyError as error:
        raise InputError(
            f"{path}: not a summary of `maediff evaluate` ({type(error).__name__})"
        ) from None
    trained = [key for key in methods if key not in baselines]
    key = name.replace("/", "_")
    if key not in methods and len(trained) != 1:
        raise InputError(
            f"{path}: does not score {key!r} but {', '.join(trained) or 'baselines only'}; name another"
        )
    own = methods[key if key in methods else trained[0]]
    values = {
        k: own[k] if isinstance(own[k], Mapping) else {"mean": own[k]}
        for k in SHOWN
        if own.get(k) is not None
    }
    best, folder = summary.get("best_baseline"), Path(summary["cohort"]).name
    return {
        "on": f"{(cohorts or {}).get(folder, folder)}, {summary['score_split']} split, {summary['modality']}",
        **{count: summary[count] for count in ("n_subjects", "n_lesion", "n_healthy")},
        "values": values,
        "best_baseline": best,
        "best_baseline_auprc": methods[best]["auprc"]["mean"] if best else None,
    }


def render_card(card: Card, model: Path) -> str:
    """MODEL_CARD.md: what the card says, and how the files of `model` have it read and calibrated."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    calibration, config = (read_json(model / name) for name in ("calibration.json", "config.json"))
    settings = {key: value for key, value in config["config"].items() if key in AT_TEST}
    settings |= flatten({"postprocess": calibration["postprocess"]})
    rate = own_fpr(model)
    _, threshold = at_most(
        dict(zip(calibration["fprs"], calibration["thresholds"], strict=True)), rate
    )
    reading = {
        "settings": [
            f"{key}={json.dumps(value, separators=(',', ':'))}" for key, value in settings.items()
        ],
        "rate": f"{100 * rate:g} %",
        "threshold": threshold,
        "own": calibration.get("default_threshold"),
        **{key: calibration[key] for key in ("source", "n_scans", "n_voxels")},
    }
    environment = Environment(  # noqa: S701 - Markdown, not HTML
        loader=PackageLoader("maediff.models"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return (
        environment.get_template("model_card.md").render(card=card, reading=reading).rstrip()
        + "\n"
    )
