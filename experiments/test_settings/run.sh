#!/usr/bin/env bash
# Compare post-processings of the shipped models on val: symmetry, blurs, SSIM.
. "$(dirname "$0")/../common.sh"

prepare lgg-t1 "$DATA/lgg/t1.csv" --modality T1w --like t1
prepare lgg-flair "$DATA/lgg/flair.csv" --modality FLAIR --like flair

t1=$DARK,postprocess.median_size=1
flair=$BRIGHT,postprocess.first_power=2,postprocess.times_intensity=2,postprocess.median_size=1
mean="postprocess.smooth_mm=[3,20]"
blurs=("$mean")
for mm in 3,20 2,20,20 3,20,20; do
    blurs+=("postprocess.smooth_mm=[$mm],postprocess.smooth_mean=geometric")
done

t1_residuals=()
flair_residuals=()
for symmetry in 0 0.25 0.75 1; do
    t1_residuals+=("$t1,$mean,postprocess.symmetry=$symmetry")
    flair_residuals+=("$flair,$mean,postprocess.symmetry=$symmetry")
done
for blur in "${blurs[@]}"; do
    flair_residuals+=("$flair,$blur,postprocess.symmetry=0.5")
    for ssim in 0 0.25 0.5; do
        t1_residuals+=("$t1,ssim_weight=$ssim,$blur,postprocess.symmetry=0.5")
    done
done

sweep t1 "$COHORTS/lgg-t1" --t own --residuals "${t1_residuals[@]}"
for model in flair flair-lgg; do
    sweep $model "$COHORTS/lgg-flair" --t own --residuals "${flair_residuals[@]}"
done
