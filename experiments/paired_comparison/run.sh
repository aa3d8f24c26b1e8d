#!/usr/bin/env bash
# Score the shipped `t1` with an earlier and with its present residual, and compare the patients in pairs.
. "$(dirname "$0")/../common.sh"

prepare lgg-t1 "$DATA/lgg/t1.csv" --modality T1w --like t1
before=t1@residual=dark,ssim_weight=0
evaluate before "$before" --cohort "$COHORTS/lgg-t1" "${BLURS_3_20[@]}" \
    --set postprocess.smooth_mean=arithmetic --set postprocess.symmetry=0.5
evaluate after t1 --cohort "$COHORTS/lgg-t1"
run - python experiments/paired_comparison/paired_evaluations.py "$RUNS/after" "$RUNS/before" \
    "t1//$before"
