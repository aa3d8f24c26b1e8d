#!/usr/bin/env bash
# Train all methods with the same budget on T1w, FLAIR and phantoms, and score them on test.
# About a day on one CPU core: each training takes 5 to 25 minutes. PARTS="t1w flair" runs a part.
. "$(dirname "$0")/../common.sh"

PARTS=${PARTS:-t1w flair phantoms-T2w phantoms-FLAIR}
one_seed=()
for method in ae vae svae fanogan; do one_seed+=(--method-seeds $method:0); done

# compare NAME COHORT METHODS... OPTIONS...: train and score with 1,000 steps of 16 slices.
compare() {
    run "$RUNS/$1/eval/summary.json" maediff compare "${@:3}" --cohort "$COHORTS/$2" \
        -o "$RUNS/$1" --preset tiny --steps 1000 --set train.batch_size=16 \
        --set train.calibration_scans=0 --resume
}

for part in $PARTS; do
    case $part in
        t1w)
            manifest=$COHORTS/lgg-t1-held-out.csv
            run "$manifest" patients "val test" "$DATA/lgg/t1.csv" "$manifest"
            prepare t1-and-patients "$DATA/ds002748" "$DATA/ds000011" "$manifest" \
                --modality T1w --like t1
            s48=@s=48,residual=dark
            compare t1w t1-and-patients "maediff$s48" "pddpm$s48" pddpm@s=16,residual=dark \
                {anoddpm,dae,ddpm,ae,vae,svae,fanogan}@residual=dark \
                "${one_seed[@]}" "${BLURS_3_20[@]}" --set postprocess.symmetry=0.5
            ;;
        flair)
            prepare lgg-flair-unregistered "$DATA/lgg/flair.csv" --modality FLAIR \
                --set registration.enabled=false
            compare flair lgg-flair-unregistered "maediff@s=48,$BRIGHT" "pddpm@s=48,$BRIGHT" \
                "pddpm@s=16,$BRIGHT" {anoddpm,dae,ddpm,ae,vae,svae,fanogan}@"$BRIGHT" \
                "${one_seed[@]}" "${BLURS_3_20[@]}" --set postprocess.first_power=2 \
                --set postprocess.times_intensity=2
            ;;
        phantoms-*)
            phantoms "${part#phantoms-}"
            compare "$part" "$part" maediff@s=48 pddpm@s=48 pddpm@s=16 anoddpm dae ddpm \
                ae vae svae fanogan "${one_seed[@]}"
            ;;
    esac
done
