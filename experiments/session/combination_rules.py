"""Score rules that combine the maps of several contrasts of one person, on val and healthy people.

    python experiments/session/combination_rules.py --csv OUT \
        glioma:T1w=COHORT,FLAIR=COHORT healthy:T1w=COHORT#DATASET,T2w=COHORT,FLAIR=COHORT

All cohorts are registered to MNI152, so the maps of a person have one grid. Every subset of the
contrasts of a group is scored by every rule (`anomaly.combine`), in units of the thresholds.

    OUT/subjects.csv   AUPRC, Dice and volume for each person, subset and rule
    OUT/rules.csv      means, and differences from the best contrast alone with paired intervals
"""

import argparse
import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from maediff.anomaly.combine import CombineConfig, combine_maps
from maediff.anomaly.postprocess import anomaly_mask, residual_map
from maediff.anomaly.score import scan_score
from maediff.anomaly.sensitivity import summarise_volumes
from maediff.cohort.cohort import Cohort
from maediff.core.types import Map, Mask
from maediff.evaluation.intervals import paired_difference
from maediff.evaluation.metrics import auprc, dice
from maediff.methods.volume import predict_volume
from maediff.models.catalogue import pick
from maediff.models.model import TrainedMethod, read_model

RULES = {
    "maximum": None,
    "mean": CombineConfig(power=1.0, weights={}),
    "square roots": CombineConfig(power=0.5, weights={}),
    "geometric mean": CombineConfig(power=0.0, weights={}),
    "harmonic mean": CombineConfig(power=-1.0, weights={}),
    "mean, FLAIR twice": CombineConfig(power=1.0, weights={"FLAIR": 2.0}),
    "square roots, FLAIR twice": CombineConfig(power=0.5, weights={"FLAIR": 2.0}),
    "geometric mean, FLAIR twice": CombineConfig(power=0.0, weights={"FLAIR": 2.0}),
}
THRESHOLDS = (0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0)
GRID_ORDER = ("T1w", "FLAIR", "T2w")
STORED = ("res", "images", "brain", "lesion", "spacing", "voxel_ml")
"""Arrays of a scan in the folder of residuals."""


@dataclass(frozen=True, eq=False)
class Person:
    """The maps of a person in units of their thresholds, on one grid."""

    group: str
    name: str
    maps: dict[str, Map]
    brains: dict[str, Mask]
    lesion: Mask
    spacing_mm: tuple[float, float, float]
    voxel_ml: float


def read_group(text: str, cache: Path | None) -> Iterator[Person]:
    """Yield the people of a group that have all of its contrasts.

    Args:
        text: NAME:CONTRAST=COHORT[#DATASET],... as on the command line.
        cache: folder of residuals, OUT/COHORT@MODEL/SCAN.npz; they are written if missing.
    """
    group, _, parts = text.partition(":")
    places = dict(part.split("=") for part in parts.split(","))
    cohorts = {contrast: open_cohort(place) for contrast, place in places.items()}
    shared = set.intersection(*(set(rows) for _, rows in cohorts.values()))
    scans: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in shared}
    for contrast, (cohort, rows) in cohorts.items():
        chosen = {name: row for name, row in rows.items() if name in shared}
        for name, scan in predict(cohort, chosen, contrast, cache):
            scans[name][contrast] = scan
    for name, by_contrast in sorted(scans.items()):
        lesions = [scan["lesion"] for scan in by_contrast.values() if scan["lesion"].any()]
        first = next(iter(by_contrast.values()))
        # The FLAIR comes last, and its lesion mask is the one that was drawn.
        lesion = lesions[-1] if lesions else np.zeros_like(first["brain"])
        yield Person(
            group=group,
            name=name,
            maps={each: scan["units"] for each, scan in by_contrast.items()},
            brains={each: scan["brain"] for each, scan in by_contrast.items()},
            lesion=lesion,
            spacing_mm=first["spacing_mm"],
            voxel_ml=first["voxel_ml"],
        )


def open_cohort(place: str) -> tuple[Cohort, dict[str, Any]]:
    """Return a cohort, and its rows by the name of the person without data set and rendering."""
    folder, _, dataset = place.partition("#")
    cohort = Cohort.open(Path(folder))
    rows = {
        re.sub(r"^.*__|_render-\d+$", "", row.name): row
        for row in cohort.rows
        if not dataset or dataset in (row.dataset, row.name.partition("__")[0])
    }
    return cohort, rows


def predict(
    cohort: Cohort, rows: dict[str, Any], contrast: str, cache: Path | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name of each person, and map, brain and lesion."""
    model = read_model(pick(contrast)[0])
    default = model.thresholds.default()
    threshold = getattr(default, "residual", default.value)
    for name, row in rows.items():
        stored = cache and cache / f"{cohort.path.name}@{model.name}" / f"{row.name}.npz"
        arrays = load_or_predict(stored, model, cohort, row)
        spacing = tuple(float(size) for size in arrays["spacing"])
        brain = arrays["brain"].astype(bool)
        anomaly = residual_map(arrays["res"], brain, spacing, model.postprocess, arrays["images"])
        yield (
            name,
            {
                "units": anomaly / np.float32(threshold),
                "brain": brain,
                "lesion": arrays["lesion"].astype(bool) & brain,
                "spacing_mm": spacing,
                "voxel_ml": float(arrays["voxel_ml"]),
            },
        )


def load_or_predict(
    stored: Path | None, model: TrainedMethod, cohort: Cohort, row: Any
) -> dict[str, Any]:
    """Return the residual of a scan and its slices."""
    if stored is not None and stored.is_file():
        with np.load(stored) as arrays:
            if set(STORED) <= set(arrays):
                return {name: arrays[name] for name in STORED}
    scan = cohort.load(row)
    residual, _ = predict_volume(model.method, scan.images, scan.brain, scan.slice_ids, seed=0)
    arrays = {
        "res": residual.astype(np.float32),
        "images": scan.images,
        "brain": scan.brain,
        "lesion": np.zeros_like(scan.brain) if scan.lesion is None else scan.lesion,
        "spacing": np.asarray(scan.spacing_mm),
        "voxel_ml": np.asarray(scan.voxel_ml),
    }
    if stored is not None:
        stored.parent.mkdir(parents=True, exist_ok=True)
        np.savez(stored, **arrays)
    return arrays


def combine(person: Person, contrasts: Sequence[str], rule: str) -> tuple[Map, Mask]:
    """Return the combined map of some contrasts, and the brain of the first one."""
    first = next(each for each in GRID_ORDER if each in contrasts)
    brain = person.brains[first]
    maps = {each: person.maps[each] for each in contrasts}
    if RULES[rule] is None:
        combined = np.max(list(maps.values()), axis=0)
    else:
        covered = {each: np.ones_like(brain) for each in contrasts}
        combined = combine_maps(maps, covered, RULES[rule])
    return np.where(brain, combined, 0).astype(np.float32), brain


def score(person: Person, rules: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield a row for each subset of the contrasts and each rule."""
    for count in range(1, len(person.maps) + 1):
        for contrasts in combinations(person.maps, count):
            for rule in rules if count > 1 else ("mean",):
                combined, brain = combine(person, contrasts, rule)
                lesion = person.lesion & brain
                row: dict[str, Any] = {
                    "group": person.group,
                    "subject": person.name,
                    "contrasts": "+".join(contrasts),
                    "rule": rule if count > 1 else "alone",
                    "score": scan_score(combined, brain, person.spacing_mm),
                    "auprc": auprc(combined, lesion, brain),
                }
                for threshold in THRESHOLDS:
                    mask = anomaly_mask(combined, brain, threshold, person.spacing_mm)
                    row[f"ml_{threshold:g}"] = float(mask.sum()) * person.voxel_ml
                    row[f"dice_{threshold:g}"] = dice(mask, lesion) if lesion.any() else np.nan
                yield row


def summarise(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the mean of each group, subset and rule, with differences from the best contrast."""
    by_key: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        by_key.setdefault((row["group"], row["contrasts"], row["rule"]), []).append(row)
    for (group, contrasts, rule), found in by_key.items():
        line: dict[str, Any] = {
            "group": group,
            "contrasts": contrasts,
            "rule": rule,
            "n": len(found),
        }
        for key in found[0]:
            if key not in ("group", "subject", "contrasts", "rule"):
                line[key] = float(np.mean([row[key] for row in found]))
        for threshold in THRESHOLDS:
            ml = [row[f"ml_{threshold:g}"] for row in found]
            usual = summarise_volumes(ml)
            line[f"median_ml_{threshold:g}"] = usual.median
            line[f"nine_of_ten_ml_{threshold:g}"] = usual.nine_of_ten
            line[f"with_region_{threshold:g}"] = sum(value > 0 for value in ml)
        alone = [by_key[(group, each, "alone")] for each in contrasts.split("+")]
        for measure in ("auprc", "dice_1"):
            best = max(alone, key=lambda each: float(np.mean([row[measure] for row in each])))
            differences = paired_difference(
                [row[measure] for row in found], [row[measure] for row in best]
            )
            line[f"{measure}_gain"] = differences.mean
            line[f"{measure}_gain_low"], line[f"{measure}_gain_high"] = (
                differences.low,
                differences.high,
            )
        yield line


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as CSV with four digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {
                    key: f"{value:.4g}" if isinstance(value, float) else value
                    for key, value in row.items()
                }
            )


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("groups", nargs="+", help="NAME:CONTRAST=COHORT[#DATASET],...")
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--csv", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--cache", type=Path, help="folder of residuals")
    return parser


def main() -> None:
    """Score all groups."""
    options = build_parser().parse_args()
    rows = []
    for group in options.groups:
        before = len(rows)
        for person in read_group(group, options.cache):
            rows += list(score(person, options.rules))
            print(group.partition(":")[0], person.name, flush=True)
        if len(rows) == before:
            raise SystemExit(f"error: {group}: its cohorts share no person")
    write(options.csv / "subjects.csv", rows)
    write(options.csv / "rules.csv", list(summarise(rows)))


if __name__ == "__main__":
    main()
