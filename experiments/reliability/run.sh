#!/usr/bin/env bash
# Read mutated scan files; needs no data set.
DATA=${DATA:-none}
. "$(dirname "$0")/../common.sh"

run - python experiments/reliability/mutate_files.py --count 1000 --seed 2
