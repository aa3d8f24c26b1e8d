#!/usr/bin/env bash
# Compare tools for brain extraction of raw T2w and FLAIR; needs `pip install maediff[hd-bet]`.
. "$(dirname "$0")/../common.sh"

run - python experiments/brain_extraction/compare_tools.py "$DATA" "$RUNS/tools.csv" \
    --tools deepbet hd-bet-fast
