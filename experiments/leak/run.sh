#!/usr/bin/env bash
# Train MAEDiff on healthy T1w, and measure how much noise leaks into its visible cells.
. "$(dirname "$0")/../common.sh"

prepare healthy-t1-unregistered "$DATA/ds002748" --modality T1w --set registration.enabled=false
train maediff maediff --cohort "$COHORTS/healthy-t1-unregistered" --preset tiny --set train.steps=800 \
    --set train.batch_size=16 --set "t_train=[0,1000]" --set recentre=false --set r=16
run - python experiments/leak/measure_leak.py "$RUNS/maediff" "$COHORTS/healthy-t1-unregistered" --t 250
