#!/usr/bin/env bash
# Train MAEDiff and pDDPM with and without synthetic lesions, and score them on val.
. "$(dirname "$0")/../common.sh"

prepare healthy-t1-unregistered "$DATA/ds002748" --modality T1w --set registration.enabled=false
prepare lgg-t1-unregistered "$DATA/lgg/t1.csv" --modality T1w --set registration.enabled=false
budget=(--cohort "$COHORTS/healthy-t1-unregistered" --preset tiny --seed 0)
budget+=(--set train.steps=400 --set train.calibration_scans=0)
scoring=("$COHORTS/lgg-t1-unregistered" --s 48 --t own)
residuals=(--residuals residual=abs,recentre=true "$DARK" "$DARK_3_20")

for method in maediff pddpm; do
    train "$method-with" $method "${budget[@]}"
    train "$method-without" $method "${budget[@]}" --set train.fabricate.share=0
    train "$method-without-t250" $method "${budget[@]}" --set train.fabricate.share=0 \
        --set "t_train=[200,301]" --set t_test=250
    sweep "$RUNS/$method-with" "${scoring[@]}" "${residuals[@]}"
    sweep "$RUNS/$method-without" "${scoring[@]}" "${residuals[@]}"
    sweep "$RUNS/$method-without-t250" "${scoring[@]}" --noise 0 1 "${residuals[@]}"
done
