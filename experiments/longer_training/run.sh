#!/usr/bin/env bash
# Fine-tune `flair` on 64,000 slices, with its own lesions and with further ones; score val. 2 hours.
. "$(dirname "$0")/../common.sh"

renderings=$COHORTS/flair-scans/manifest.csv
phantoms=$COHORTS/flair-phantoms/manifest.csv
run "$renderings" python tools/render_contrast.py "$DATA/ds002748" "$COHORTS/flair-scans" FLAIR \
    --n 2 --overwrite
run "$phantoms" python tools/make_phantoms.py "$COHORTS/flair-phantoms" --contrast FLAIR \
    --train 24 --val 0 --test 0 --healthy-val 4 --healthy-test 0 --overwrite
prepare flair "$renderings" "$phantoms" --modality FLAIR --like flair
prepare_val lgg-flair-val "$DATA/lgg/flair.csv" --modality FLAIR --like flair
prepare wmh-flair "$DATA/wmh/flair.csv" --modality FLAIR --like flair
prepare_patient07 flair FLAIR FLAIR

# fine_tune_flair NAME OPTIONS...: continue the training of `flair`.
fine_tune_flair() {
    train "$1" maediff --init flair --cohort "$COHORTS/flair" --seed 0 \
        --set "train.steps=${STEPS:-2000}" --set train.batch_size=32 \
        --set train.learning_rate=3e-4 --set train.schedule=cosine --set train.warmup_steps=50 \
        --set train.flip=true --set train.ema_decay=0.99 --set train.checkpoint_every=100 \
        --set train.calibration_scans=0 --set train.augment.preset=robust-bright \
        --set train.fabricate.share=0.9 --set "train.fabricate.radius=[1.0,28.0]" \
        --set "train.fabricate.level=[0.4,1.1]" "${@:2}"
}
fine_tune_flair longer
fine_tune_flair factors --set train.augment.atrophy=0.5 --set train.augment.widening_px=4 \
    --set train.fabricate.blobs=0.4 --set train.fabricate.pairs=0.35 --set train.fabricate.rim=0.1 \
    --set train.fabricate.texture=0.1 --set train.fabricate.shift=0.2

for cohort in lgg-flair-val wmh-flair ms-flair; do
    evaluate "$cohort" flair "$RUNS/longer" "$RUNS/factors" --cohort "$COHORTS/$cohort" \
        --score-split val --calibrate-split val --set "postprocess.smooth_mm=[2,20,20]" \
        --set postprocess.smooth_mean=geometric --set postprocess.times_intensity=2 \
        --set postprocess.median_size=1 --set postprocess.symmetry=0 --set postprocess.extent=0.5
done
