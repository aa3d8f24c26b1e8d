#!/usr/bin/env bash
# Train MAEDiff without parts of its autoencoder and with other patch sizes, and score it on val.
. "$(dirname "$0")/../common.sh"

prepare healthy-t1-unregistered "$DATA/ds002748" --modality T1w --set registration.enabled=false
prepare lgg-t1-unregistered "$DATA/lgg/t1.csv" --modality T1w --set registration.enabled=false

# compare NAME STRIDE METHOD SETTINGS...: train and score.
compare() {
    train "$1" "$3" --cohort "$COHORTS/healthy-t1-unregistered" --preset tiny --set train.steps=400 \
        --set train.calibration_scans=0 "${@:4}"
    sweep "$RUNS/$1" "$COHORTS/lgg-t1-unregistered" --s "$2" --t own \
        --residuals residual=abs,recentre=true "$DARK" "$DARK_3_20"
}

for seed in 0 1 2; do
    compare "concat-$seed" 48 maediff --seed $seed
    compare "visible-only-$seed" 48 maediff --seed $seed --set mae.fusion=visible_only
    compare "map-only-$seed" 48 maediff --seed $seed --set mae.fusion=map_only
    compare "pddpm-$seed" 48 pddpm --seed $seed
done
compare add 48 maediff --set mae.fusion=add
compare replace 48 maediff --set mae.back=replace
compare p32 32 maediff --set p=32
compare p64 32 maediff --set p=64
