#!/usr/bin/env bash
# Score the shipped models again, and compare with the recorded scores; as `make results`.
. "$(dirname "$0")/../common.sh"

run - python experiments/reproduce_results/reproduce_results.py --data "$DATA" \
    --cohorts "$COHORTS" --runs "$RUNS"
