#!/usr/bin/env bash
# Kill parts of distributed commands, resume them, and compare with one plain command.
. "$(dirname "$0")/../common.sh"

SCANS=${SCANS:-$DATA/ixi10}
WORK=$RUNS
run - python experiments/scaling/kill_and_resume.py shards "$SCANS" --work "$WORK"
run - python experiments/scaling/kill_and_resume.py ray "$SCANS" --work "$WORK"
