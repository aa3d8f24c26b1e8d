#!/usr/bin/env bash
# Fine-tune `t1` with the slices below and above as further inputs; score val. 50 minutes.
#
# PATCHED is a checkout with neighbours.patch, see README.md. The control is that of mirrored_input.
. "$(dirname "$0")/../common.sh"

start_from_t1 --inputs 3 --set neighbours=2
fine_tune neighbours "$RUNS/init"
score_like_t1 "$RUNS/neighbours"
