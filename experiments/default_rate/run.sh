#!/usr/bin/env bash
# Score the masks of the shipped models on val at many thresholds.
. "$(dirname "$0")/../common.sh"

default_rate=experiments/default_rate/default_rate.py
prepare lgg-t1 "$DATA/lgg/t1.csv" --modality T1w --like t1
prepare lgg-flair "$DATA/lgg/flair.csv" --modality FLAIR --like flair
run - python $default_rate t1 "$COHORTS/lgg-t1" --rates 0.00001 \
    --thresholds 0.04 0.05 0.06 0.065 0.07 0.08
run - python $default_rate flair "$COHORTS/lgg-flair" --rates 0.0001 0.001 0.002 0.005 0.01 0.015 0.02
