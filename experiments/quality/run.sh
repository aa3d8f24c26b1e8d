#!/usr/bin/env bash
# Flags of quality control on healthy scans, and on the same scans damaged on purpose.
. "$(dirname "$0")/../common.sh"

mkdir -p "$RUNS"
for kind in healthy damaged; do
    run - python experiments/quality/measure_flags.py "$kind" --data "$DATA" \
        --cache "$RUNS/cache" --out "$RUNS/$kind.csv"
done
