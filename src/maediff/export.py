"""A trained run -> a model folder to ship: averaged weights, config without paths, calibration, card (see shipped.py).

What a person knows and no file tells (data, licence, failure cases) comes in a mapping; all else is read from the run
and from evaluations of it.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from maediff import __version__
from maediff.anomaly.postprocess import PostprocessConfig
from maediff.anomaly.thresholds import CALIBRATION_SCANS
from maediff.checkpoint import load_model, write_tensors
from maediff.cohort.cohort import Cohort
from maediff.core.config import build_config, flatten
from maediff.core.errors import InputError
from maediff.core.files import read_json, write_json, write_text
from maediff.operating_point import (
    FPRS,
    at_most,
    calibrate,
    is_own_threshold,
    is_rate,
    own_fpr,
    own_postprocess,
)
from maediff.preparation.config import is_registered
from maediff.recalibrate import unseen_healthy
from maediff.references import split_reference, without_path
from maediff.run_folder import (
    FORMAT,
    TRAINED_ON,
    complete,
    config_of,
    read_config,
    trained_on,
    write_config,
)
from maediff.shipped import MAX_BYTES, NAME, Card, read_card
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
MACHINE_PATH = re.compile(
    r"(?<![\w.:/])/(?:home|root|work|tmp|mnt|media|scratch|Users|data)/\S*|\b[A-Za-z]:\\\S*"
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
    "smooth_sigma",
    "times_intensity",
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


def export_model(
    reference: str | Path,
    out: Path,
    about: Mapping[str, Any],
    *,
    evaluations: Sequence[Path] = (),
    cohort: Path | None = None,
    max_scans: int = CALIBRATION_SCANS,
    unseen: bool = False,
    post: PostprocessConfig | None = None,
    half: bool | None = None,
    device: str = "cpu",
    overwrite: bool = False,
) -> Card:
    """Write the model folder `out`, whose name is the model's, and return its card.

    Args:
        reference: a run; the settings in `RUN@t_test=125` become the model's own.
        about: the fields of `Card` named in GIVEN; `summary`, `licence`, `data` and `failure_cases` have to be there.
            `calibrated_on` says what the calibration's scans are where they are no scans of the contrast (renderings),
            `default_fpr` the rate of `detect` where nobody names one, `default_threshold` (value, chosen_on) what
            stands before that rate, `cohorts` what the scored ones are, by the name of their folder.
        evaluations: summary.json of `maediff evaluate`, or their folders, that scored this run.
        cohort: with healthy val scans to calibrate on anew; None copies the run's calibration if it is of the very
            settings that are exported.
        unseen: calibrate on the healthy scans of every split of `cohort` whose people the run was not trained on.
        post: what to calibrate with, and what comes with the model; None: the run's own.
        half: weights as fp16; None: only where fp32 would be too large.

    Raises:
        InputError: something is missing, would name a path of this machine, is too large, or `out` exists.
    """
    if not NAME.fullmatch(out.name):
        raise InputError(
            f"{out}: a model's name has small letters, digits, - and _ only; rename it"
        )
    if out.exists() and not overwrite:
        raise InputError(f"{out}: exists; choose another name, or add --overwrite")
    if out.exists() and not (out / "card.json").is_file():
        raise InputError(
            f"{out}: is no model (it has no card.json) and is not overwritten; choose another name"
        )
    if unknown := about.keys() - set(GIVEN):
        raise InputError(
            f"card of {out.name}: unknown {', '.join(sorted(unknown))}; known are {', '.join(GIVEN)}"
        )
    if "default_fpr" in about and not is_rate(about["default_fpr"]):
        raise InputError(
            f"card of {out.name}: default_fpr {about['default_fpr']!r}; give a number from {FPRS[0]} to "
            f"{FPRS[-1]}"
        )
    if "default_threshold" in about and not is_own_threshold(about["default_threshold"]):
        raise InputError(
            f"card of {out.name}: default_threshold {about['default_threshold']}; give value, between 0 "
            "and 1, and chosen_on"
        )
    run = split_reference(reference)[0]
    method, info = load_model(reference)
    temporary = out.with_name(f".{out.name}.tmp-{os.getpid()}")
    try:
        config = {key: info[key] for key in ("method", "preset", "train", "seed", "cohort")}
        init = without_path(info.get("init"))
        write_config(temporary, {**config, "config": config_of(method), "init": init})
        save_weights(temporary / "model.safetensors", method, info, half)
        if cohort is not None:
            post = post or own_postprocess(run)
            rate = own_fpr(run)
            opened = Cohort.open(cohort)
            rows = unseen_healthy(opened, run) if unseen else None
            if not calibrate(
                temporary,
                opened,
                rows=rows,
                device=device,
                post=post,
                max_scans=max_scans,
                rate=rate,
            ):
                which = (
                    "healthy scan of somebody unseen" if unseen else "val scan with healthy slices"
                )
                raise InputError(f"{cohort}: no {which} to calibrate on; choose another --cohort")
        else:
            _copy_calibration(run, temporary, config_of(method), info["step"])
        told = {
            "source": about.get("calibrated_on"),
            **{key: about.get(key) for key in ("default_fpr", "default_threshold")},
        }
        if told := {key: value for key, value in told.items() if value is not None}:
            write_json(
                temporary / "calibration.json",
                {**read_json(temporary / "calibration.json"), **told},
            )
        if people := trained_on(run):
            write_json(temporary / TRAINED_ON, people)
        card = make_card(
            out.name,
            run,
            info,
            about,
            [read_scores(path, info["name"], about.get("cohorts", {})) for path in evaluations],
        )
        write_json(temporary / "card.json", asdict(card))
        write_text(temporary / "MODEL_CARD.md", render_card(card, temporary))
        for path in sorted(temporary.iterdir()):
            found = (
                None
                if path.suffix == ".safetensors"
                else MACHINE_PATH.search(path.read_text(encoding="utf-8"))
            )
            if found:
                raise InputError(
                    f"{path.name} of {out.name}: names a path of this machine, {found[0]}; take it out"
                )
        shutil.rmtree(out, ignore_errors=True)
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return card


def save_weights(
    path: Path, method: torch.nn.Module, info: Mapping[str, Any], half: bool | None = None
) -> None:
    """Write the weights that predict, and no others, to one safetensors file under MAX_BYTES.

    Raises:
        InputError: they do not fit.
    """
    state = method.state_dict()
    size = sum(value.numel() * value.element_size() for value in state.values())
    if half or (half is None and size > 0.98 * MAX_BYTES):
        state = {
            key: value.half() if value.is_floating_point() else value
            for key, value in state.items()
        }
    metadata = {"format": FORMAT, "method": info["method"], "step": str(info["step"])}
    tensors = {f"ema.{key}": value for key, value in state.items()}
    write_tensors(path, tensors, {**metadata, "maediff": __version__})
    if path.stat().st_size > MAX_BYTES:
        raise InputError(
            f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, and a shipped model has at most {MAX_BYTES / 1e6:.0f}; "
            "write it as fp16, or train a smaller preset"
        )


def _copy_calibration(run: Path, out: Path, config: dict[str, Any], step: int) -> None:
    path = run / "calibration.json"
    stored = read_json(path, remedy="give --cohort to calibrate anew") if path.is_file() else {}
    settings = stored.get("config")
    known = complete(read_config(run), settings) if isinstance(settings, dict) else None
    if (known, stored.get("step")) != (config, step):
        raise InputError(
            f"{path}: absent, or of other settings than are exported; give --cohort to calibrate anew"
        )
    write_json(out / "calibration.json", stored)


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
        loader=PackageLoader("maediff"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return (
        environment.get_template("model_card.md").render(card=card, reading=reading).rstrip()
        + "\n"
    )
