#!/usr/bin/env bash
# Estimate T2w-like scans of ten patients, and score the shipped model `t2` on them.
. "$(dirname "$0")/../common.sh"

scans=$COHORTS/t2-like-scans
run "$scans/manifest.csv" python experiments/t2_like_scans/make_pseudo_t2.py \
    "$DATA/mslub/patient07" "$DATA/lgg/flair.csv" "$DATA/lgg/t1.csv" "$scans"
prepare t2-like "$scans/manifest.csv" --modality T2w --like t2
evaluate t2 t2 --cohort "$COHORTS/t2-like" --score-split val --calibrate-split val
