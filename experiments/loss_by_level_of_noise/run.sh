#!/usr/bin/env bash
# Train MAEDiff and pDDPM on healthy T1w with noise of all levels, and compare their losses.
. "$(dirname "$0")/../common.sh"

prepare healthy-t1-unregistered "$DATA/ds002748" --modality T1w --set registration.enabled=false
budget=(--cohort "$COHORTS/healthy-t1-unregistered" --preset tiny --set train.steps=800)
budget+=(--set train.batch_size=16 --set "t_train=[0,1000]" --set recentre=false)
train maediff maediff "${budget[@]}" --set r=16
train pddpm pddpm "${budget[@]}"
run - python experiments/loss_by_level_of_noise/loss_by_t.py "$COHORTS/healthy-t1-unregistered" \
    "$RUNS/maediff" "$RUNS/pddpm" --t 125 250 375 500 700
