#!/usr/bin/env bash
# Score the growth of regions of `flair` and `t2` on val, at defaults from healthy scans.
. "$(dirname "$0")/../common.sh"

healthy_renderings FLAIR flair
prepare_val lgg-flair-val "$DATA/lgg/flair.csv" --modality FLAIR --like flair
prepare wmh-flair "$DATA/wmh/flair.csv" --modality FLAIR --like flair
run "$RUNS/flair.csv" python experiments/extent/extent.py flair "$COHORTS/healthy-flair" \
    "$COHORTS/lgg-flair-val" "$COHORTS/wmh-flair" --csv "$RUNS/flair.csv"

healthy_renderings T2w t2
run "$COHORTS/t2-like-scans/manifest.csv" python experiments/t2_like_scans/make_pseudo_t2.py \
    "$DATA/mslub/patient07" "$DATA/lgg/flair.csv" "$DATA/lgg/t1.csv" "$COHORTS/t2-like-scans"
prepare t2-like "$COHORTS/t2-like-scans/manifest.csv" --modality T2w --like t2
run "$RUNS/t2.csv" python experiments/extent/extent.py t2 "$COHORTS/healthy-t2" \
    "$COHORTS/t2-like" --csv "$RUNS/t2.csv"

prepare ixi-t1 "$DATA/ixi10" --modality T1w --like t1
prepare_val lgg-t1-val "$DATA/lgg/t1.csv" --modality T1w --like t1
run "$RUNS/t1.csv" python experiments/extent/extent.py t1 "$COHORTS/ixi-t1" \
    "$COHORTS/lgg-t1-val" --threshold 0.065 --csv "$RUNS/t1.csv"
