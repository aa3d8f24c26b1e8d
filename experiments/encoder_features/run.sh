#!/usr/bin/env bash
# Weight the maps of the shipped models by a difference of encoder features; score val. 10 minutes.
. "$(dirname "$0")/../common.sh"

# features MODEL LABELLED...: score all weights of a model on cohorts.
features() {
    local labelled=()
    for name in "${@:2}"; do labelled+=("$COHORTS/$name"); done
    run "$RUNS/$1.csv" python experiments/encoder_features/score_features.py "$1" \
        "${labelled[@]}" --csv "$RUNS/$1.csv"
}

prepare_val lgg-t1-val "$DATA/lgg/t1.csv" --modality T1w --like t1
features t1 lgg-t1-val

prepare_val lgg-flair-val "$DATA/lgg/flair.csv" --modality FLAIR --like flair
prepare wmh-flair "$DATA/wmh/flair.csv" --modality FLAIR --like flair
features flair lgg-flair-val wmh-flair

run "$COHORTS/t2-like-scans/manifest.csv" python experiments/t2_like_scans/make_pseudo_t2.py \
    "$DATA/mslub/patient07" "$DATA/lgg/flair.csv" "$DATA/lgg/t1.csv" "$COHORTS/t2-like-scans"
prepare t2-like "$COHORTS/t2-like-scans/manifest.csv" --modality T2w --like t2
features t2 t2-like
