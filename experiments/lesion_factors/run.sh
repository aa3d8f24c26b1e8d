#!/usr/bin/env bash
# Fine-tune `t1` with lesions of independent factors and simulated atrophy; score val. 30 minutes.
. "$(dirname "$0")/../common.sh"

prepare t1 "$DATA/ds002748" "$DATA/ds000011" --modality T1w --like t1
prepare lgg-t1 "$DATA/lgg/t1.csv" --modality T1w --like t1
prepare wmh-t1 "$DATA/wmh/t1.csv" --modality T1w --like t1
train factors maediff --init t1 --cohort "$COHORTS/t1" --seed 0 \
    --set train.steps=800 --set train.batch_size=32 --set train.learning_rate=3e-4 \
    --set train.schedule=cosine --set train.warmup_steps=50 --set train.flip=true \
    --set train.ema_decay=0.99 --set train.checkpoint_every=100 --set train.calibration_scans=0 \
    --set train.augment.preset=robust --set train.augment.atrophy=0.5 \
    --set train.augment.widening_px=4 --set train.fabricate.share=0.9 \
    --set "train.fabricate.radius=[1.0,28.0]" --set "train.fabricate.level=[0.0,1.1]" \
    --set train.fabricate.blobs=0.4 --set train.fabricate.pairs=0.25 \
    --set train.fabricate.rim=0.2 --set train.fabricate.texture=0.2 --set train.fabricate.shift=0.25
evaluate lgg t1 "$RUNS/factors" --cohort "$COHORTS/lgg-t1" --score-split val
run "$RUNS/volumes.csv" python experiments/lesion_factors/detected_volumes.py \
    "$COHORTS/wmh-t1" t1 "$RUNS/factors" --like t1 --csv "$RUNS/volumes.csv"
