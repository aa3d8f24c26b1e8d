"""From one row per run and subject to the tables of an evaluation. Numbers in, numbers and text out.

    run    = one trained model (or baseline) on every subject of the score split
    group  = runs of one method and configuration that differ in the seed: mean over seeds first, then over subjects

A person with several scans (sessions, runs) counts once: her scans' mean stands for her in every mean and interval.
Intervals are 95 % bootstrap intervals over subjects; for the rate of flagged healthy scans, Clopper-Pearson.
Voxels of one scan are not independent, so the voxel-wise rate is a mean over scans with a bootstrap, too.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from maediff.evaluation.intervals import bootstrap_interval, clopper_pearson, paired_difference

Row = Mapping[str, Any]
Summary = dict[str, Any]

_MEASURED = {  # key of summary.json -> column of scores.csv, post-processed and (`_unfiltered`) of the raw residual
    "auprc": "auprc",
    "auprc_all_voxels": "auprc_all_voxels",
    "dice": "dice",
    "dice_healthy_calibrated": "dice_healthy_calibrated",
    "dice_conformal": "dice_conformal",
    "dice_oracle": "dice_oracle",
    "lesion_recall": "lesion_recall",
    "false_positives_per_scan": "false_positives",
    "false_positives_per_healthy_scan": "false_positives_healthy",
    "fpr_healthy": "fpr_healthy",
    "fpr_healthy_label_calibrated": "fpr_healthy_label_calibrated",
}
_RATES = {
    "scan_fpr_healthy": "flagged_healthy",
    "scan_fpr_healthy_label_calibrated": "flagged_healthy_label_calibrated",
    "scan_fpr_healthy_conformal": "flagged_healthy_conformal",
    "scan_recall_conformal": "flagged_ill_conformal",
}


def _both(keys: Mapping[str, str]) -> dict[str, str]:
    return dict(keys) | {
        f"{key}_unfiltered": f"{column}_unfiltered" for key, column in keys.items()
    }


BY_SUBJECT = _both(_MEASURED) | {
    "l1_healthy": "l1",
    "psnr_healthy": "psnr",
    "ssim_healthy": "ssim",
}
SCAN_RATES = _both(_RATES)
VOXEL_RATES = _both({"fpr_healthy_voxels": "fpr_healthy"})
DIFFERENCES = ("auprc", "auprc_unfiltered", "dice", "dice_unfiltered", "l1")
POOLED = ("auprc_pooled", "auprc_pooled_unfiltered")


def summarise(rows: Sequence[Row], extras: Mapping[str, Summary], seed: int = 0) -> Summary:
    """Everything in `summary.json` that the rows of `scores.csv` say.

    Args:
        extras: by run, what is not in the rows: `auprc_pooled`, `thresholds`, `healthy_source`.
    """
    by_run: dict[str, list[Row]] = {}
    for row in rows:
        by_run.setdefault(row["method"], []).append(row)
    baselines = [name for name, own in by_run.items() if not own[0]["trained"]]
    runs = [name for name in by_run if name not in baselines]
    same = ("group", "seed", "trained")
    methods = {
        name: {**summarise_run(own, seed), **extras[name], **{key: own[0][key] for key in same}}
        for name, own in by_run.items()
    }
    groups: dict[str, Summary] = {}
    by_group = {name: by_run[name] for name in baselines}
    for group in dict.fromkeys(by_run[name][0]["group"] for name in runs):
        members = [name for name in runs if by_run[name][0]["group"] == group]
        by_group[group] = list(itertools.chain.from_iterable(by_run[name] for name in members))
        pooled = {key: [methods[name][key] for name in members] for key in POOLED}
        groups[group] = {
            **summarise_group([by_run[name] for name in members], seed),
            **{
                key: None if None in found else float(np.mean(found))
                for key, found in pooled.items()
            },
            "runs": members,
            "seeds": [methods[name]["seed"] for name in members],
        }
    best = best_of(methods, baselines)
    against = [best] if best else []
    scans = next(iter(by_run.values()))
    return {
        "n_subjects": len({row["person"] for row in scans}),
        "n_scans": len(scans),
        "n_lesion": sum(math.isfinite(row["auprc"]) for row in scans),
        "n_healthy": sum(bool(row["healthy"]) for row in scans),
        "methods": methods,
        "groups": groups,
        "baselines": baselines,
        "best_baseline": best,
        "differences": differences(by_run, _pairs(runs, against), seed) if best else [],
        "group_differences": differences(by_group, _pairs(list(groups), against), seed)
        if best
        else [],
    }


def summarise_run(rows: Sequence[Row], seed: int = 0) -> Summary:
    """Means and intervals over the subjects of one run; None where no subject has the value. Rates of scans are over
    scans.
    """
    people = _means_by("person", rows, list(BY_SUBJECT.values()))
    summary: Summary = {
        key: _interval([row[column] for row in people], seed) for key, column in BY_SUBJECT.items()
    }
    for key, column in SCAN_RATES.items():
        summary[key] = _scan_rate([row[column] for row in rows])
    for key, column in VOXEL_RATES.items():
        summary[key] = _voxel_rate(
            [row[column] for row in rows], [row["brain_voxels"] for row in rows]
        )
    by_kind = {
        kind: _means_by("person", [row for row in rows if row["lesion_kind"] == kind], ["auprc"])
        for kind in sorted({row["lesion_kind"] for row in rows if row["lesion_kind"]})
    }
    summary["auprc_by_kind"] = {
        kind: _interval([row["auprc"] for row in own], seed) for kind, own in by_kind.items()
    }
    return summary


def summarise_group(runs: Sequence[Sequence[Row]], seed: int = 0) -> Summary:
    """As `summarise_run`, of every scan's mean over runs; `sd` is the deviation of the runs' means."""
    columns = [*BY_SUBJECT.values(), *SCAN_RATES.values()]
    summary = summarise_run(
        _means_by("subject", list(itertools.chain.from_iterable(runs)), columns), seed
    )
    by_person = [_means_by("person", rows, list(BY_SUBJECT.values())) for rows in runs]
    for members, keys in ((by_person, BY_SUBJECT), (runs, SCAN_RATES)):
        for key, column in keys.items():
            if summary[key] is not None:
                means = [_mean([row[column] for row in rows]) for rows in members]
                summary[key]["sd"] = float(np.std(means, ddof=1)) if len(means) > 1 else None
    return summary


def differences(
    rows: Mapping[str, Sequence[Row]], pairs: Sequence[tuple[str, str]], seed: int = 0
) -> list[dict[str, Any]]:
    """Mean of a - b over subjects with a paired bootstrap interval, for every pair (a, b) of keys of `rows`.

    `mean`, `low` and `high` are of AUPRC; those of DIFFERENCES stand beside them, None where no subject has both. The
    rows of a group hold each scan several times; the scan's mean is taken first, then the person's.
    """
    means = {
        name: {row["subject"]: row for row in _means_by("subject", own, DIFFERENCES)}
        for name, own in rows.items()
    }
    found = []
    for a, b in pairs:
        entry: dict[str, Any] = {"a": a, "b": b}
        for column in DIFFERENCES:
            both = [
                {"person": of_a["person"], "a": of_a[column], "b": means[b][scan][column]}
                for scan, of_a in sorted(means[a].items())
                if scan in means[b] and math.isfinite(of_a[column] - means[b][scan][column])
            ]
            people = _means_by("person", both, ["a", "b"])
            interval = paired_difference(
                [row["a"] for row in people], [row["b"] for row in people], seed
            )
            if column == "auprc":
                entry |= {"n_subjects": len(people), **interval.as_dict()}
            else:
                entry[column] = interval.as_dict() if people else None
        found.append(entry)
    return found


def best_of(
    methods: Mapping[str, Summary], names: Sequence[str], key: str = "auprc"
) -> str | None:
    """The name with the highest mean, None where none has one."""
    known = {
        name: methods[name][key]["mean"]
        for name in names
        if name in methods and methods[name].get(key)
    }
    return max(known, key=lambda name: known[name]) if known else None


def _interval(values: Sequence[float], seed: int) -> dict[str, Any] | None:
    interval = bootstrap_interval(values, seed)
    return dict(interval.as_dict()) if math.isfinite(interval.mean) else None


def _scan_rate(flags: Sequence[float]) -> dict[str, Any] | None:
    finite = [float(flag) for flag in flags if math.isfinite(flag)]
    return dict(clopper_pearson(sum(finite), len(finite)).as_dict()) if finite else None


def _voxel_rate(rates: Sequence[float], voxels: Sequence[float]) -> dict[str, Any] | None:
    """Marked voxels of all healthy brains together, as if voxels were independent; they are not."""
    known = [(rate * n, n) for rate, n in zip(rates, voxels, strict=True) if math.isfinite(rate)]
    if not known:
        return None
    marked, trials = (sum(part) for part in zip(*known, strict=True))
    return dict(clopper_pearson(marked, round(trials)).as_dict())


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")


def _means_by(key: str, rows: Sequence[Row], columns: Sequence[str]) -> list[Row]:
    """A row for each value of `key`, in the order of the first: its rows' means of `columns`, the rest the first's."""
    alike: dict[str, list[Row]] = {}
    for row in rows:
        alike.setdefault(row[key], []).append(row)
    return [
        {**own[0], **{column: _mean([row[column] for row in own]) for column in columns}}
        for own in alike.values()
    ]


def _pairs(names: Sequence[str], against: Sequence[str]) -> list[tuple[str, str]]:
    return [*itertools.combinations(names, 2), *itertools.product(names, against)]
