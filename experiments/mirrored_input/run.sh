#!/usr/bin/env bash
# Fine-tune `t1` with and without its mirrored slice as a second input; score val. 90 minutes.
#
# PATCHED is a checkout with mirrored.patch, see README.md.
. "$(dirname "$0")/../common.sh"

export PYTHONPATH=${PATCHED:-patched-checkout}/src
mkdir -p "$RUNS"
prepare t1 "$DATA/ds002748" "$DATA/ds000011" --modality T1w --like t1
prepare lgg-t1 "$DATA/lgg/t1.csv" --modality T1w --like t1
run "$RUNS/init/config.json" python experiments/mirrored_input/widen_stem.py t1 "$RUNS/init" \
    --inputs 2 --set mirror=true

# fine_tune NAME INIT: 32,000 slices from a model.
fine_tune() {
    train "$1" maediff --init "$2" --cohort "$COHORTS/t1" --seed 0 \
        --set train.steps=1000 --set train.batch_size=32 --set train.learning_rate=3e-4 \
        --set train.schedule=cosine --set train.warmup_steps=50 --set train.flip=true \
        --set train.ema_decay=0.99 --set train.checkpoint_every=100 --set train.calibration_scans=0
}

fine_tune control t1
fine_tune mirrored "$RUNS/init"
evaluate lgg t1 "$RUNS/mirrored" "$RUNS/control" --cohort "$COHORTS/lgg-t1" --score-split val \
    --set "postprocess.smooth_mm=[2,20,20]" --set postprocess.smooth_mean=geometric \
    --set postprocess.median_size=1 --set postprocess.symmetry=0.5
