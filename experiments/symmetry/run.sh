#!/usr/bin/env bash
# Score kinds of symmetry of `flair` on val, at thresholds from rendered healthy scans.
. "$(dirname "$0")/../common.sh"

healthy_renderings FLAIR flair
prepare_val lgg-flair-val "$DATA/lgg/flair.csv" --modality FLAIR --like flair
prepare wmh-flair "$DATA/wmh/flair.csv" --modality FLAIR --like flair
run "$RUNS/scores.csv" python experiments/symmetry/symmetry.py flair "$COHORTS/healthy-flair" \
    "$COHORTS/lgg-flair-val" "$COHORTS/wmh-flair" --csv "$RUNS/scores.csv"
