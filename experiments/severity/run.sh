#!/usr/bin/env bash
# Fine-tune `t1` with the severity of the lesions as its time input; score val. 50 minutes.
#
# PATCHED is a checkout with severity.patch, see README.md. The control is that of mirrored_input.
. "$(dirname "$0")/../common.sh"

start_from_t1 --set "severities=[250,500,750]"
fine_tune severity "$RUNS/init"
names=("$RUNS/severity")
for severity in 250 500 750; do names+=("$RUNS/severity@severities=[$severity]"); done
score_like_t1 "${names[@]}"
