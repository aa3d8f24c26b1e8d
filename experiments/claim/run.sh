#!/usr/bin/env bash
# Train MAEDiff and pDDPM with the paper's recipe and with ours, on pDDPM's budget, and score them.
# 573,000 slices per run: about 9 hours on one CPU core, or 12 minutes on an H200. Four runs.
# A stopped run resumes when the script is started again. BUDGET=3200 tries all steps quickly.
. "$(dirname "$0")/../common.sh"

BUDGET=${BUDGET:-573000}
manifest=$COHORTS/lgg-t1-held-out.csv

run "$manifest" patients "val test" "$DATA/lgg/t1.csv" "$manifest"
prepare t1-and-patients "$DATA/ds002748" "$DATA/ds000011" "$manifest" --modality T1w --like t1

# The paper's recipe, both methods in turn.
run - python experiments/claim/train_in_turn.py "$COHORTS/t1-and-patients" "$RUNS" --budget "$BUDGET"
# Ours: the preset's recipe.
for method in maediff pddpm; do
    train "$method-ours" "$method" --cohort "$COHORTS/t1-and-patients" --preset tiny \
        --seed 0 --set train.batch_size=32 --set "train.steps=$((BUDGET / 32))" \
        --set train.calibration_scans=0 --set s=48
done

# Noise at test as in the paper, at three levels; ours at its own level without noise.
names=()
for t in 125 250 500; do
    for method in maediff pddpm; do
        names+=("$RUNS/$method-paper@t_test=$t,noise_test=1")
    done
done
names+=("$RUNS/maediff-ours" "$RUNS/pddpm-ours")
evaluate val "${names[@]}" --cohort "$COHORTS/t1-and-patients" --score-split val \
    --set postprocess.smooth_mm=[] --set postprocess.symmetry=0
if [ -n "${TEST:-}" ]; then # once, when nothing changes any more
    evaluate test "${names[@]}" --cohort "$COHORTS/t1-and-patients" \
        --set postprocess.smooth_mm=[] --set postprocess.symmetry=0
fi
