#!/usr/bin/env bash
# Calibrate on healthy scans of one scanner, and count what is flagged on healthy scans of another.
. "$(dirname "$0")/../common.sh"

manifest=$COHORTS/two-scanners.csv
run "$manifest" python experiments/another_scanner/make_manifest.py \
    "$DATA/ds002748" "$DATA/ixi10" "$manifest"
prepare two-scanners "$manifest" --modality T1w --like t1

prepare t1 "$DATA/ds002748" "$DATA/ds000011" --modality T1w --like t1
budget=(--cohort "$COHORTS/t1" --preset tiny --set train.steps=600)
train plain maediff "${budget[@]}"
train robust maediff "${budget[@]}" --set train.augment=robust
residual=s=24,residual=dark
evaluate scores "$RUNS/plain@$residual" "$RUNS/robust@$residual" "t1@$residual" \
    --cohort "$COHORTS/two-scanners" --set "postprocess.smooth_mm=[]" \
    --set postprocess.smooth_mean=arithmetic --set postprocess.median_size=5 \
    --set postprocess.symmetry=0 --set postprocess.first_smooth_mm=4
evaluate t1 t1 --cohort "$COHORTS/two-scanners"
