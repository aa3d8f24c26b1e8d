#!/usr/bin/env bash
# Mutate inputs, kill commands, and start two on one folder; needs no data set.
DATA=${DATA:-none}
. "$(dirname "$0")/../common.sh"

run - python experiments/reliability/mutate_inputs.py --count 10000 --minutes 30 --csv "$RUNS/fuzz.csv"
run - python experiments/reliability/stop_commands.py kills --count 100 --minutes 30 --csv "$RUNS/kills.csv"
run - python experiments/reliability/stop_commands.py pairs --count 5 --minutes 30 --csv "$RUNS/pairs.csv"
