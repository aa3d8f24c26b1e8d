"""Means, intervals and differences from the rows of scores.csv.

    run     one trained model (or baseline) on every scan of the scored split
    group   runs that differ in the seed only: the mean over seeds of each scan, then over people

A person with several scans (sessions) counts once: the mean of the person's scans enters every
mean and interval. Intervals are 95 % bootstrap intervals over people; for the rate of flagged
scans, which counts scans, they are Clopper-Pearson intervals.
The voxels of a scan are not independent, so `fpr_healthy` is a mean over people, too.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from maediff.evaluation.intervals import bootstrap_interval, clopper_pearson, paired_difference

Row = Mapping[str, Any]
Summary = dict[str, Any]
UNFILTERED = "_unfiltered"
"""End of the columns and keys of the raw residual: no blur, no median filter."""


def _with_unfiltered(keys: Mapping[str, str]) -> dict[str, str]:
    """Return `keys` and the same for the raw residual."""
    return dict(keys) | {
        f"{key}{UNFILTERED}": f"{column}{UNFILTERED}" for key, column in keys.items()
    }


BY_SUBJECT = _with_unfiltered(
    {
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
) | {
    "l1_healthy": "l1",
    "psnr_healthy": "psnr",
    "ssim_healthy": "ssim",
}
"""Key of summary.json -> column of scores.csv: means over people."""
SCAN_RATES = _with_unfiltered(
    {
        "scan_fpr_healthy": "flagged_healthy",
        "scan_fpr_healthy_label_calibrated": "flagged_healthy_label_calibrated",
        "scan_fpr_healthy_conformal": "flagged_healthy_conformal",
        "scan_recall_conformal": "flagged_ill_conformal",
    }
)
"""Key of summary.json -> column of scores.csv: shares of scans."""
VOXEL_RATES = _with_unfiltered({"fpr_healthy_voxels": "fpr_healthy"})
"""Key of summary.json -> column of scores.csv: shares of the voxels of all healthy brains."""
DIFFERENCES = ("auprc", "auprc_unfiltered", "dice", "dice_unfiltered", "l1")
"""Columns of scores.csv whose differences between methods are tested."""
POOLED = ("auprc_pooled", "auprc_pooled_unfiltered")


def summarise(rows: Sequence[Row], extras: Mapping[str, Summary], seed: int = 0) -> Summary:
    """Return the part of summary.json that follows from the rows of scores.csv.

    Args:
        rows: rows of all runs and baselines, each on the same scans.
        extras: values of each run that are not in its rows: `auprc_pooled`, `thresholds`,
            `healthy_source`, `conformal`.
        seed: seed of the bootstrap.
    """
    by_run: dict[str, list[Row]] = {}
    for row in rows:
        by_run.setdefault(row["method"], []).append(row)
    baselines = [name for name, run_rows in by_run.items() if not run_rows[0]["trained"]]
    runs = [name for name in by_run if name not in baselines]
    methods = {
        name: {
            **summarise_run(run_rows, seed),
            **extras[name],
            **{key: run_rows[0][key] for key in ("group", "seed", "trained")},
        }
        for name, run_rows in by_run.items()
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
                key: None if None in values else float(np.mean(values))
                for key, values in pooled.items()
            },
            "runs": members,
            "seeds": [methods[name]["seed"] for name in members],
        }
    best = find_best(methods, baselines)
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
        "differences": differences(by_run, _list_pairs(runs, best), seed) if best else [],
        "group_differences": differences(by_group, _list_pairs(list(groups), best), seed)
        if best
        else [],
    }


def summarise_run(rows: Sequence[Row], seed: int = 0) -> Summary:
    """Return the means and intervals of one run; None where no scan has the value.

    Args:
        rows: one per scan.
        seed: seed of the bootstrap.
    """
    people = _average_by("person", rows, list(BY_SUBJECT.values()))
    summary: Summary = {
        key: _bootstrap([row[column] for row in people], seed)
        for key, column in BY_SUBJECT.items()
    }
    for key, column in SCAN_RATES.items():
        summary[key] = _scan_rate([row[column] for row in rows])
    for key, column in VOXEL_RATES.items():
        summary[key] = _voxel_rate(
            [row[column] for row in rows], [row["brain_voxels"] for row in rows]
        )
    kinds = sorted({row["lesion_kind"] for row in rows if row["lesion_kind"]})
    by_kind = {
        kind: _average_by("person", [row for row in rows if row["lesion_kind"] == kind], ["auprc"])
        for kind in kinds
    }
    summary["auprc_by_kind"] = {
        kind: _bootstrap([row["auprc"] for row in kind_rows], seed)
        for kind, kind_rows in by_kind.items()
    }
    return summary


def summarise_group(runs: Sequence[Sequence[Row]], seed: int = 0) -> Summary:
    """Return the means and intervals of a group, as `summarise_run` does.

    The mean over runs of each scan comes first. `sd` is the standard deviation of the runs'
    means; None for a single run.

    Args:
        runs: the rows of each run.
        seed: seed of the bootstrap.
    """
    columns = [*BY_SUBJECT.values(), *SCAN_RATES.values()]
    summary = summarise_run(
        _average_by("subject", list(itertools.chain.from_iterable(runs)), columns), seed
    )
    by_person = [_average_by("person", rows, list(BY_SUBJECT.values())) for rows in runs]
    for members, keys in ((by_person, BY_SUBJECT), (runs, SCAN_RATES)):
        for key, column in keys.items():
            if summary[key] is not None:
                means = [_finite_mean([row[column] for row in rows]) for rows in members]
                summary[key]["sd"] = float(np.std(means, ddof=1)) if len(means) > 1 else None
    return summary


def differences(
    rows: Mapping[str, Sequence[Row]], pairs: Sequence[tuple[str, str]], seed: int = 0
) -> list[dict[str, Any]]:
    """Return the mean of a - b over people with a paired bootstrap interval, for each pair.

    The mean of each scan over a group's runs comes first, then the mean over a person's scans.

    Args:
        rows: rows of each run or group.
        pairs: (a, b), keys of `rows`.
        seed: seed of the bootstrap.

    Returns:
        One entry per pair: `a`, `b`, `n_subjects` (people with both values), and `mean`, `low`
        and `high` of AUPRC. Each other column of DIFFERENCES has an entry with these three values,
        or None if no person has both values.
    """
    by_scan = {
        name: {row["subject"]: row for row in _average_by("subject", own_rows, DIFFERENCES)}
        for name, own_rows in rows.items()
    }
    entries = []
    for a, b in pairs:
        entry: dict[str, Any] = {"a": a, "b": b}
        for column in DIFFERENCES:
            in_both = [
                {"person": row["person"], "a": row[column], "b": by_scan[b][scan][column]}
                for scan, row in sorted(by_scan[a].items())
                if scan in by_scan[b] and math.isfinite(row[column] - by_scan[b][scan][column])
            ]
            people = _average_by("person", in_both, ["a", "b"])
            interval = paired_difference(
                [row["a"] for row in people], [row["b"] for row in people], seed
            )
            if column == "auprc":
                entry |= {"n_subjects": len(people), **interval.as_dict()}
            else:
                entry[column] = interval.as_dict() if people else None
        entries.append(entry)
    return entries


def find_best(
    methods: Mapping[str, Summary], names: Sequence[str], key: str = "auprc"
) -> str | None:
    """Return the name with the highest mean; None if no mean is known.

    Args:
        methods: the `methods` of a summary.
        names: names to choose from.
        key: key of the mean.
    """
    means = {
        name: methods[name][key]["mean"]
        for name in names
        if name in methods and methods[name].get(key)
    }
    return max(means, key=lambda name: means[name]) if means else None


def _bootstrap(values: Sequence[float], seed: int) -> dict[str, Any] | None:
    """Return mean and bootstrap interval; None without a finite value."""
    interval = bootstrap_interval(values, seed)
    return dict(interval.as_dict()) if math.isfinite(interval.mean) else None


def _scan_rate(flags: Sequence[float]) -> dict[str, Any] | None:
    """Return the share of flagged scans with its interval; None without a scan."""
    finite = [float(flag) for flag in flags if math.isfinite(flag)]
    return dict(clopper_pearson(sum(finite), len(finite)).as_dict()) if finite else None


def _voxel_rate(rates: Sequence[float], voxels: Sequence[float]) -> dict[str, Any] | None:
    """Return the share of voxels above the threshold in all healthy brains together.

    The interval treats the voxels as independent. They are not, so it is too narrow.

    Args:
        rates: share of each scan; NaN for a scan that is not healthy.
        voxels: brain voxels of each scan.
    """
    healthy = [(rate * n, n) for rate, n in zip(rates, voxels, strict=True) if math.isfinite(rate)]
    if not healthy:
        return None
    positive, total = (sum(part) for part in zip(*healthy, strict=True))
    return dict(clopper_pearson(positive, round(total)).as_dict())


def _finite_mean(values: Sequence[float]) -> float:
    """Return the mean of the finite values; NaN without one."""
    finite = [value for value in values if math.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")


def _average_by(key: str, rows: Sequence[Row], columns: Sequence[str]) -> list[Row]:
    """Return one row per value of `key`, in order of appearance.

    `columns` are means over the rows with that value; other columns are those of the first row.
    """
    by_value: dict[str, list[Row]] = {}
    for row in rows:
        by_value.setdefault(row[key], []).append(row)
    return [
        {**same[0], **{column: _finite_mean([row[column] for row in same]) for column in columns}}
        for same in by_value.values()
    ]


def _list_pairs(names: Sequence[str], baseline: str) -> list[tuple[str, str]]:
    """Return all pairs of `names`, then each name with the baseline."""
    return [*itertools.combinations(names, 2), *((name, baseline) for name in names)]
