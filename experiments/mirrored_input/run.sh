#!/usr/bin/env bash
# Fine-tune `t1` with and without its mirrored slice as a second input; score val. 90 minutes.
#
# PATCHED is a checkout with mirrored.patch, see README.md.
. "$(dirname "$0")/../common.sh"

start_from_t1 --inputs 2 --set mirror=true
fine_tune control t1
fine_tune mirrored "$RUNS/init"
score_like_t1 "$RUNS/mirrored" "$RUNS/control"
