#!/usr/bin/env bash
# Train each method with four levels of noise, and score them on val.
. "$(dirname "$0")/../common.sh"

prepare t1 "$DATA/ds002748" "$DATA/ds000011" --modality T1w --like t1
prepare lgg-t1 "$DATA/lgg/t1.csv" --modality T1w --like t1
budget=(--cohort "$COHORTS/t1" --preset tiny --seed 0)
budget+=(--set train.steps=400 --set train.calibration_scans=0)
scoring=("$COHORTS/lgg-t1" --t own --residuals "$DARK_3_20,postprocess.symmetry=0.5")

for method in maediff pddpm anoddpm ddpm; do
    stride=()
    case $method in maediff | pddpm) stride=(--s 48) ;; esac
    for t in 55 95 165 245; do
        train "$method-t$t" $method "${budget[@]}" \
            --set "t_train=[$((t - 15)),$((t + 16))]" --set t_test=$t
        sweep "$RUNS/$method-t$t" "${scoring[@]}" ${stride[@]+"${stride[@]}"}
    done
done
for noise_sd in 0.067 0.1 0.2 0.3; do
    train "dae-sd$noise_sd" dae "${budget[@]}" --set noise_sd=$noise_sd
    sweep "$RUNS/dae-sd$noise_sd" "${scoring[@]}"
done
