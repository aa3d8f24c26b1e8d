#!/usr/bin/env bash
# Train MAEDiff on scans that were prepared in six ways, and score each on val scans prepared alike.
. "$(dirname "$0")/../common.sh"

# From tools/learn_landmarks.py, on unregistered and on registered healthy scans.
landmarks="[0.193,0.3157,0.3993,0.4715,0.5427,0.616,0.693,0.7764,0.8665]"
registered="[0.1948,0.313,0.3943,0.4652,0.536,0.6105,0.6907,0.7768,0.8677]"
residuals=(--residuals residual=abs,recentre=true "$DARK" "$DARK_3_20")

# compare NAME SETTINGS...: prepare, train and score with these settings of `maediff preprocess`.
compare() {
    prepare "prepared-$1" "$DATA/ds002748" "$DATA/ds000011" --modality T1w "${@:2}"
    prepare "prepared-$1-lgg" "$DATA/lgg/t1.csv" --modality T1w "${@:2}"
    train "$1" maediff --cohort "$COHORTS/prepared-$1" --preset tiny --set train.steps=600
    sweep "$RUNS/$1" "$COHORTS/prepared-$1-lgg" --s 48 --t own "${residuals[@]}"
    evaluate "$1-healthy" "$RUNS/$1@s=48" --cohort "$COHORTS/prepared-$1" --score-split val
}

compare unregistered --set registration.enabled=false
compare n4 --set registration.enabled=false --set bias.enabled=true
compare registered --set registration.enabled=true
compare n4-registered --set registration.enabled=true --set bias.enabled=true
compare standardised --set registration.enabled=false --set "normalise.landmarks=$landmarks"
compare standardised-registered --set registration.enabled=true \
    --set "normalise.landmarks=$registered"
