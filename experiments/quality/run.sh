#!/usr/bin/env bash
# Flags of quality control on healthy scans, and on the same scans damaged on purpose.
. "$(dirname "$0")/../common.sh"

measure() {
    run - python experiments/quality/measure_flags.py "$1" --data "$DATA" --cache "$RUNS/cache" \
        --out "$RUNS/$1.csv" "${@:2}"
}
measure healthy --groups "ds002748 T1w" "ds000011 T1w" "ixi10 T1w" "wmh T1w" "ds000011 T2w" \
    "wmh FLAIR"
measure damaged --scans 10 --groups "ixi10 T1w" "ds000011 T2w" "wmh FLAIR" "mslub contrast agent"
for kind in healthy damaged; do
    run - python experiments/quality/measure_flags.py table --out "$RUNS/$kind.csv"
done
