#!/usr/bin/env bash
# Draw eight synthetic scans with the masks of an older checkout (OLD) and of this one. 4 minutes.
DATA=${DATA:-none}
. "$(dirname "$0")/../common.sh"

OLD=${OLD:-old-checkout}
run "$RUNS/before_after.png" python experiments/before_after/draw_scans.py \
    "$OLD" "$RUNS" "$RUNS/before_after.png"
