"""A trained run -> a model folder to ship: averaged weights, config without paths, calibration, card (see shipped.py).

What a person knows and no file tells (data, licence, failure cases) comes in a mapping; all else is read from the run
and from evaluations of it.
"""

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
from maediff.cohort.cohort import Cohort
from maediff.core.errors import InputError
from maediff.core.files import read_json, write_json, write_text
from maediff.models.calibrate import calibrate_folder, unseen_healthy
from maediff.models.card import Card
from maediff.models.card_text import GIVEN, make_card, read_scores, render_card
from maediff.models.catalogue import MAX_BYTES, NAME
from maediff.models.folder import (
    FORMAT,
    TRAINED_ON,
    complete,
    config_of,
    read_config,
    trained_on,
    write_config,
)
from maediff.models.model import load_model, read_model
from maediff.models.operating_point import (
    FPRS,
    is_own_threshold,
    is_rate,
    own_fpr,
    own_postprocess,
)
from maediff.models.reference import split_reference, without_path
from maediff.models.weights import write_tensors

MACHINE_PATH = re.compile(
    r"(?<![\w.:/])/(?:home|root|work|tmp|mnt|media|scratch|Users|data)/\S*|\b[A-Za-z]:\\\S*"
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
            rows = unseen_healthy(opened, read_model(run)) if unseen else None
            if not calibrate_folder(
                temporary,
                opened,
                rows=rows,
                device=device,
                postprocess=post,
                max_scans=max_scans,
                default_fpr=rate,
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
