#!/usr/bin/env bash
# Score the simple baselines on 32 phantoms of each contrast; needs no data set.
DATA=${DATA:-none}
. "$(dirname "$0")/../common.sh"

run - python experiments/phantom_baselines/phantom_baselines.py --split val --subjects 32
