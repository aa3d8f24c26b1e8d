"""Checks of an evaluation before anything is scored: its runs, its maps and its scans.

A check refuses what would make the scores wrong, or returns a note for the reader of the table.
"""

import itertools
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from maediff.anomaly.postprocess import DEFAULT, PostprocessConfig, without_own_steps
from maediff.cohort.cohort import Cohort, SubjectSlices
from maediff.cohort.splits import person_code
from maediff.core.errors import InputError
from maediff.evaluation.maps import is_map_folder
from maediff.methods.registry import BASELINES
from maediff.models.model import TrainedMethod, read_model
from maediff.preparation.config import PreparationConfig

logger = logging.getLogger(__name__)
NAMES_SHOWN = 5
"""Largest number of names that a message lists."""


@dataclass(frozen=True)
class EvaluationScans:
    """The scans of an evaluation.

    Args:
        calibrate: scans that thresholds are chosen on; the list `scored` itself if the splits are
            the same.
        scored: scans that are measured.
        notes: for the reader of the table.
    """

    calibrate: list[SubjectSlices]
    scored: list[SubjectSlices]
    notes: list[str]


def refuse_baseline_name(reference: str | Path, name: str) -> None:
    """Refuse a run or a folder of maps that is named like a baseline.

    Raises:
        InputError: names both.
    """
    if name in BASELINES:
        raise InputError(
            f"{reference}: named like the baseline {name!r}, and tables show both; "
            "rename the folder"
        )


def find_map_folders(runs: Sequence[str | Path]) -> dict[str, Path]:
    """Return the folders of anomaly maps among `runs`, by their name in every table.

    Raises:
        InputError: two folders have the same name, or one is named like a baseline.
    """
    folders: dict[str, Path] = {}
    for folder in filter(is_map_folder, map(Path, runs)):
        name = folder.resolve().name
        refuse_baseline_name(folder, name)
        if name in folders:
            raise InputError(
                f"{folder}: a second folder of maps named {name!r}, beside {folders[name]}; "
                "rename one of them"
            )
        folders[name] = folder
    return folders


def read_models(
    runs: Sequence[str | Path], cohort: Cohort, used_names: Collection[str] = ()
) -> dict[str, TrainedMethod]:
    """Read the models to score, by their name in every table; no network is built.

    Args:
        runs: models, as `read_model` accepts them.
        cohort: the cohort that they are scored on.
        used_names: names that are in use already.

    Raises:
        InputError: no model, a model of another contrast, or a name that is in use.
    """
    models: dict[str, TrainedMethod] = {}
    for reference in runs:
        if str(reference) in BASELINES and not Path(reference).exists():
            raise InputError(
                f"{reference}: a simple baseline, and all of them are scored anyway; give models"
            )
        model = read_model(reference)
        name = model.name.replace("/", "_")
        refuse_baseline_name(reference, name)
        if name in models or name in used_names:
            raise InputError(
                f"{reference}: a second run named {name!r}; tables name runs by their folder, "
                "so rename one of them"
            )
        contrast, expected = model.preparation.modality, cohort.meta["modality"]
        if contrast != expected:
            raise InputError(
                f"{reference}: trained on {contrast}, but the cohort {cohort.path} holds "
                f"{expected}; give a cohort of the run's contrast"
            )
        models[name] = model
    return models


def describe_other_preparation(models: Mapping[str, TrainedMethod], cohort: Cohort) -> list[str]:
    """Return a note for each model whose training scans were prepared in another way.

    Each note is also logged as a warning.
    """
    notes = []
    preparation = PreparationConfig.from_record(cohort.meta)
    for name, model in models.items():
        if differing := model.preparation.differences(preparation):
            notes.append(
                f"{name} was trained on scans with other settings of {', '.join(differing)} than "
                "the cohort's."
            )
            logger.warning(
                "%s, so its scores are not meaningful; preprocess the scans with `like=%s`",
                notes[-1].rstrip("."),
                name,
            )
    return notes


def describe_other_postprocess(
    models: Mapping[str, TrainedMethod], chosen: PostprocessConfig
) -> list[str]:
    """Return a note for each model whose own post-processing is not used.

    Args:
        models: the scored models.
        chosen: the post-processing of the evaluation.
    """
    return [
        f"{name} has its own post-processing, which `maediff detect` uses. Here all runs are "
        "scored with one other post-processing. To score the run with its own, evaluate it "
        "alone, or give the settings of postprocess."
        for name, model in models.items()
        if without_own_steps(model.postprocess) not in (DEFAULT, chosen)
    ]


def refuse_seen_subjects(
    models: Mapping[str, TrainedMethod], cohort: Cohort, score_split: str
) -> None:
    """Refuse models that were trained on scored subjects, as far as the models list subjects.

    Raises:
        InputError: names the model and the subjects.
    """
    for folder, subjects in _find_seen(models, cohort, score_split).items():
        raise InputError(
            f"{folder}: was trained on {_list_names(subjects)} of split {score_split!r} of "
            f"{cohort.path}; score subjects that the model was not trained on"
        )


def describe_seen_calibration(
    models: Mapping[str, TrainedMethod], cohort: Cohort, split: str
) -> list[str]:
    """Return a note for each model that was trained on subjects of the calibration split."""
    return [
        f"{folder.name} was trained on {_list_names(subjects)} of split {split!r}, on which "
        "thresholds are chosen: its Dice and its rates on healthy scans are not reliable."
        for folder, subjects in _find_seen(models, cohort, split).items()
    ]


def _find_seen(
    models: Mapping[str, TrainedMethod], cohort: Cohort, split: str
) -> dict[Path, list[str]]:
    """Return the subjects of a split that a model was trained on, by the model's folder."""
    people = {person_code(row.dataset, row.subject): row.subject for row in cohort.split(split)}
    parts = [part for model in models.values() for part in (model.parts or (model,))]
    seen = {
        part.folder: sorted(people[code] for code in part.learned_from if code in people)
        for part in parts
    }
    return {folder: subjects for folder, subjects in seen.items() if subjects}


def _list_names(names: Sequence[str]) -> str:
    others = " and others" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + others


def check_splits(cohort: Cohort, calibrate_split: str, score_split: str) -> None:
    """Check the splits of an evaluation, without reading a scan.

    Args:
        cohort, calibrate_split, score_split: as for `load_scans`.

    Raises:
        InputError: an unknown split, a person in two splits, or an empty scored split.
    """
    _refuse_shared_people(cohort, (score_split, calibrate_split, "train"))
    if not cohort.split(score_split):
        raise InputError(
            f"{cohort.path}: no subject in split {score_split!r}; choose another `score_split`"
        )


def load_scans(cohort: Cohort, calibrate_split: str, score_split: str) -> EvaluationScans:
    """Load the scans to calibrate on and the scans to score.

    Args:
        cohort: the cohort.
        calibrate_split: split that thresholds are chosen on.
        score_split: split that is measured.

    Raises:
        InputError: a person is in two splits, the scored split is empty, or it has neither a
            healthy scan nor a lesion.
    """
    check_splits(cohort, calibrate_split, score_split)
    scored = [cohort.load(row) for row in cohort.split(score_split)]
    has_truth = any(
        scan.healthy or (scan.lesion is not None and (scan.lesion & scan.brain).any())
        for scan in scored
    )
    if not has_truth:
        raise InputError(
            f"{cohort.path}: split {score_split!r} has neither a healthy subject nor a lesion in "
            'a mask, so nothing can be scored; fill in the columns "healthy" or "lesion_mask" of '
            "the manifest"
        )
    notes = []
    if score_split == "train":
        notes.append("Scored on the train split: the models were trained on these subjects.")
    if calibrate_split == score_split:
        notes.append(
            f"Thresholds were chosen on the scored split ({score_split}): "
            "Dice and rates are optimistic."
        )
        return EvaluationScans(scored, scored, notes)
    calibrate = [cohort.load(row) for row in cohort.split(calibrate_split)]
    if not calibrate:
        notes.append(
            f"No subject in split {calibrate_split!r}: no threshold, and no Dice but the oracle's."
        )
    return EvaluationScans(calibrate, scored, notes)


def _refuse_shared_people(cohort: Cohort, splits: Sequence[str]) -> None:
    """Refuse a cohort with a person in two of `splits`; equal splits count once.

    Raises:
        InputError: names the subjects and the splits.
    """
    subjects = {
        split: {row.person: row.subject for row in cohort.split(split)} for split in splits
    }
    for first, second in itertools.combinations(subjects, 2):
        shared = subjects[first].keys() & subjects[second].keys()
        if shared:
            names = sorted(subjects[first][person] for person in shared)
            raise InputError(
                f"{cohort.path}: {_list_names(names)} in both {first!r} and {second!r}; scored "
                "subjects must not be used for training or calibration, so correct the splits "
                "in the manifest"
            )
