"""Merge of the shards of a command, before the report of the folder is written."""

import json
from pathlib import Path

from maediff.core.files import write_text
from maediff.core.options import RunOptions
from maediff.core.shards import MERGED, hash_names, read_shards


def merge_shards(folder: Path, run: RunOptions | None = None) -> list[str]:
    """Merge the results of all shards of a folder, unless the same records were merged before.

    Args:
        folder: output folder of `detect`, `preprocess` or `evaluate`, with or without shards.
        run: `workers` and `quiet` apply to the scoring of an evaluation.

    Returns:
        Names of the shards that were merged now; empty if there was nothing to merge.

    Raises:
        InputError: a shard is missing or has not finished; names it.
    """
    records = read_shards(folder)
    state = hash_names([json.dumps(record, sort_keys=True) for record in records])
    marker = folder / MERGED
    if not records or (marker.is_file() and marker.read_text(encoding="utf-8") == state):
        return []
    command = records[0]["settings"]["command"]
    if command == "detect":
        from maediff.detection.detect import merge_shards as merge_detection

        merge_detection(folder)
    elif command == "preprocess":
        from maediff.cohort.preprocess import merge_shards as merge_cohort

        merge_cohort(folder)
    else:
        from maediff.evaluation.evaluate import merge_shards as merge_evaluation

        merge_evaluation(folder, run or RunOptions())
    write_text(marker, state)
    return [record["shard"] for record in records]
