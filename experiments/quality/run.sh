#!/usr/bin/env bash
# Flags of quality control on healthy scans, and on the same scans damaged on purpose.
. "$(dirname "$0")/../common.sh"

mkdir -p "$RUNS"
measure() {
    run - python experiments/quality/measure_flags.py "$1" --data "$DATA" --cache "$RUNS/cache" \
        --out "$RUNS/$1.csv" "${@:2}"
}
measure healthy
measure damaged --scans 10 --groups "ixi10 T1w" "ds000011 T2w" "wmh FLAIR" "wmh T1w" \
    "ds002748 T1w" "mslub contrast agent"
for kind in healthy damaged; do
    run - python experiments/quality/measure_flags.py table --out "$RUNS/$kind.csv"
done
