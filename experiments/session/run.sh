#!/usr/bin/env bash
# Score rules that combine the contrasts of a session, on val patients and healthy people.
. "$(dirname "$0")/../common.sh"

healthy_renderings T2w t2
healthy_renderings FLAIR flair
prepare healthy-t1 "$DATA/ds002748" --modality T1w --like t1
prepare ds000011-t1 "$DATA/ds000011" --modality T1w --like t1
prepare ds000011-t2 "$DATA/ds000011" --modality T2w --like t2
for set in lgg wmh; do
    prepare_val "$set-t1-val" "$DATA/$set/t1.csv" --modality T1w --like t1
    prepare_val "$set-flair-val" "$DATA/$set/flair.csv" --modality FLAIR --like flair
done
prepare_patient07 t1 T1 T1w
prepare_patient07 t2 T2 T2w
prepare_patient07 flair FLAIR FLAIR
run "$RUNS/rules.csv" python experiments/session/combination_rules.py \
    "glioma:T1w=$COHORTS/lgg-t1-val,FLAIR=$COHORTS/lgg-flair-val" \
    "white matter lesions:T1w=$COHORTS/wmh-t1-val,FLAIR=$COHORTS/wmh-flair-val" \
    "multiple sclerosis:T1w=$COHORTS/ms-t1,T2w=$COHORTS/ms-t2,FLAIR=$COHORTS/ms-flair" \
    "healthy, rendered:T1w=$COHORTS/healthy-t1,T2w=$COHORTS/healthy-t2,FLAIR=$COHORTS/healthy-flair" \
    "healthy, scanned:T1w=$COHORTS/ds000011-t1,T2w=$COHORTS/ds000011-t2" \
    --cache "$RUNS/residuals" --csv "$RUNS"
