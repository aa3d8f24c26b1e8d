#!/usr/bin/env bash
# Detect in the same scans under other conditions and compare.
# MINUTES stops before the next command after this time; start again to resume.
# ENVIRONMENTS="NAME=PYTHON ..." adds environments that tools/release_check.py --work FOLDER kept.
. "$(dirname "$0")/../common.sh"

scans=(
    "sub-01_T1w=$DATA/ds002748/sub-01/anat/sub-01_T1w.nii.gz"
    "sub-07_T1w=$DATA/ds002748/sub-07/anat/sub-07_T1w.nii.gz"
    "Subj10_FLAIR=$DATA/wmh/Subj10/FLAIR.nii.gz"
    "sub-02_T2w=$DATA/ds000011/sub-02/anat/sub-02_inplaneT2.nii.gz"
)
pythons=()
for environment in ${ENVIRONMENTS:-}; do pythons+=(--python "$environment"); done
run - python experiments/reproducibility/repeat_detection.py measure "${scans[@]}" \
    --work "$RUNS" --csv "$RUNS/differences.csv" ${MINUTES:+--minutes "$MINUTES"} "${pythons[@]}"
run - python experiments/reproducibility/repeat_detection.py table "$RUNS/differences.csv"
