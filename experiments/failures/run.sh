#!/usr/bin/env bash
# Describe the scans of val on which `t1` and `flair` score low. 5 minutes.
. "$(dirname "$0")/../common.sh"

# describe MODEL COHORT: write the table of a cohort.
describe() {
    run "$RUNS/$2.csv" python experiments/failures/describe_scans.py "$1" "$COHORTS/$2" \
        --csv "$RUNS/$2.csv"
}

prepare_val lgg-t1-val "$DATA/lgg/t1.csv" --modality T1w --like t1
describe t1 lgg-t1-val
prepare_val lgg-flair-val "$DATA/lgg/flair.csv" --modality FLAIR --like flair
describe flair lgg-flair-val
prepare_val wmh-flair-val "$DATA/wmh/flair.csv" --modality FLAIR --like flair
describe flair wmh-flair-val
