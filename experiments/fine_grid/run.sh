#!/usr/bin/env bash
# Score `flair` and `t1` on a grid of 1.5 mm, without training, on val. 30 minutes on one core.
. "$(dirname "$0")/../common.sh"

# score MODEL MODALITY DATA_SET...: score a model on each data set's scans on both grids.
score() {
    local pairs=() of
    for of in "${@:3}"; do
        local name="$of-$1-val"
        prepare_val "$name" "$DATA/$of/$1.csv" --modality "$2" --like "$1"
        prepare "$name-fine" "$COHORTS/$name.csv" --modality "$2" --like "$1" \
            --set grid.size=128 --set grid.spacing_mm=1.5
        pairs+=(--pair "$COHORTS/$name" "$COHORTS/$name-fine")
    done
    run "$RUNS/$1.csv" python experiments/fine_grid/score_grids.py "$1" "${pairs[@]}" \
        --csv "$RUNS/$1.csv"
}

score flair FLAIR lgg wmh
score t1 T1w lgg
