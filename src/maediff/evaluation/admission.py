"""Which runs, maps and subjects an evaluation admits, and what its reader has to know about them."""

import itertools
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from maediff.cohort.cohort import Cohort, SubjectSlices
from maediff.cohort.splits import person_code
from maediff.core.errors import InputError
from maediff.evaluation.maps import is_map_folder
from maediff.methods.registry import BASELINES
from maediff.models.model import TrainedMethod, read_model
from maediff.preparation.config import PreparationConfig
from maediff.scans.reference import subject_in_dataset

logger = logging.getLogger(__name__)


def map_folders(runs: Sequence[str | Path]) -> dict[str, Path]:
    """Those of `runs` that are folders of anomaly maps, by the name that they have in every table.

    Raises:
        InputError: two of one name.
    """
    folders: dict[str, Path] = {}
    for folder in filter(is_map_folder, map(Path, runs)):
        name = folder.resolve().name
        if name in folders:
            raise InputError(
                f"{folder}: a second folder of maps named {name!r}, beside {folders[name]}; rename one"
            )
        folders[name] = folder
    return folders


def check_runs(
    runs: Sequence[str | Path], cohort: Cohort, taken: Collection[str] = ()
) -> dict[str, TrainedMethod]:
    """Read the models to score, by the name that each has in every table; no network is built.

    Args:
        runs: as `read_model` takes them.
        taken: names that are in use already.

    Raises:
        InputError: not a model, one of another contrast than the cohort's, or two of one name.
    """
    models: dict[str, TrainedMethod] = {}
    for reference in runs:
        model = read_model(reference)
        name = model.name.replace("/", "_")
        if name in BASELINES:
            raise InputError(
                f"{reference}: a run named like the baseline {name!r} cannot be told from it; rename the folder"
            )
        if name in models or name in taken:
            raise InputError(
                f"{reference}: a second run named {name!r}; tables name runs by folder, rename one"
            )
        contrast, wanted = model.preparation.modality, cohort.meta["modality"]
        if contrast != wanted:
            raise InputError(
                f"{reference}: trained on {contrast}, but the cohort {cohort.path} holds {wanted}; "
                "give a cohort of the run's contrast"
            )
        models[name] = model
    return models


def prepared_otherwise(models: Mapping[str, TrainedMethod], cohort: Cohort) -> list[str]:
    """Return a remark for each model whose scans were prepared in another way than the cohort's; also logged."""
    remarks = []
    preparation = PreparationConfig.from_record(cohort.meta)
    for name, model in models.items():
        if differing := model.preparation.differences(preparation):
            remarks.append(
                f"{name} learned from scans with other settings of {', '.join(differing)} than the cohort's."
            )
            logger.warning(
                "%s; its figures say little: preprocess the scans with --like",
                remarks[-1].rstrip("."),
            )
    return remarks


def _seen_subjects(
    models: Mapping[str, TrainedMethod], cohort: Cohort, split: str
) -> dict[Path, list[str]]:
    """Return the subjects of a split that a model learned from, by the model's folder."""
    people = {person_code(row.dataset, row.subject): row.subject for row in cohort.split(split)}
    parts = [part for model in models.values() for part in (model.parts or (model,))]
    seen = {
        part.folder: sorted(people[code] for code in part.learned_from if code in people)
        for part in parts
    }
    return {folder: subjects for folder, subjects in seen.items() if subjects}


def check_unseen(models: Mapping[str, TrainedMethod], cohort: Cohort, score_split: str) -> None:
    """Refuse models that learned from people who are scored, as far as a model records its people.

    Raises:
        InputError: names the model and the people.
    """
    for folder, subjects in _seen_subjects(models, cohort, score_split).items():
        raise InputError(
            f"{folder}: was trained on {_some(subjects)} of split {score_split!r} of {cohort.path}; score subjects "
            "that it has not seen"
        )


def calibrated_on_seen(
    models: Mapping[str, TrainedMethod], cohort: Cohort, split: str
) -> list[str]:
    """Return a remark for each model that learned from people whom thresholds are taken from."""
    return [
        f"{folder.name} was trained on {_some(subjects)} of split {split!r}, from which thresholds were taken: its "
        "Dice and its rates on healthy scans at those say little."
        for folder, subjects in _seen_subjects(models, cohort, split).items()
    ]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (" and others" if len(names) > 5 else "")


def subjects_of(
    cohort: Cohort, calibrate_split: str, score_split: str
) -> tuple[list[SubjectSlices], list[SubjectSlices], list[str]]:
    """Subjects to calibrate on and to score, and what the reader should know about them.

    Raises:
        InputError: a person in two splits; nobody to score, or nothing to score against.
    """
    calibrate_rows, score_rows = cohort.split(calibrate_split), cohort.split(score_split)
    for one, other in itertools.combinations(
        dict.fromkeys((score_split, calibrate_split, "train")), 2
    ):
        people = [
            {
                (row.dataset, subject_in_dataset(row.dataset, row.subject))
                for row in cohort.split(split)
            }
            for split in (one, other)
        ]
        if shared := people[0] & people[1]:
            raise InputError(
                f"{cohort.path}: {_some(sorted(name for _, name in shared))} in both {one!r} and {other!r}; "
                "nothing may be learnt or chosen on scored subjects, mend the manifest's splits"
            )
    if not score_rows:
        raise InputError(
            f"{cohort.path}: no subject in split {score_split!r}; choose another --score-split"
        )
    scored = [cohort.load(row) for row in score_rows]
    if not any(s.healthy or (s.lesion is not None and (s.lesion & s.brain).any()) for s in scored):
        raise InputError(
            f"{cohort.path}: split {score_split!r} has neither a healthy subject nor a lesion in a mask, so there "
            "is nothing to score against; give `healthy` or `lesion_mask` in the manifest"
        )
    notes = []
    if score_split == "train":
        notes.append("Scored on the train split: models have seen these subjects.")
    if calibrate_split == score_split:
        notes.append(
            f"Thresholds were chosen on the scored split ({score_split}): Dice and rates are optimistic."
        )
        return scored, scored, notes
    if not calibrate_rows:
        notes.append(
            f"No subject in split {calibrate_split!r}: no threshold, and no Dice but the oracle's."
        )
    return [cohort.load(row) for row in calibrate_rows], scored, notes
