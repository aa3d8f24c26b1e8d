#!/usr/bin/env bash
# Score filters of the anomaly map of the shipped models on val. An hour on one core.
. "$(dirname "$0")/../common.sh"

# filters MODEL HEALTHY LABELLED...: score all filters of a model on cohorts.
filters() {
    local labelled=()
    for name in "${@:3}"; do labelled+=("$COHORTS/$name"); done
    run "$RUNS/$1.csv" python experiments/map_filters/filter_maps.py "$1" \
        --healthy "$COHORTS/$2" --labelled "${labelled[@]}" --csv "$RUNS/$1.csv"
}

healthy_renderings FLAIR flair
prepare_val lgg-flair-val "$DATA/lgg/flair.csv" --modality FLAIR --like flair
prepare wmh-flair "$DATA/wmh/flair.csv" --modality FLAIR --like flair
filters flair healthy-flair lgg-flair-val wmh-flair

healthy_renderings T2w t2
run "$COHORTS/t2-like-scans/manifest.csv" python experiments/t2_like_scans/make_pseudo_t2.py \
    "$DATA/mslub/patient07" "$DATA/lgg/flair.csv" "$DATA/lgg/t1.csv" "$COHORTS/t2-like-scans"
prepare t2-like "$COHORTS/t2-like-scans/manifest.csv" --modality T2w --like t2
filters t2 healthy-t2 t2-like

prepare ixi-t1 "$DATA/ixi10" --modality T1w --like t1
prepare_val lgg-t1-val "$DATA/lgg/t1.csv" --modality T1w --like t1
filters t1 ixi-t1 lgg-t1-val
