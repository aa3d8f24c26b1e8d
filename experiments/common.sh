# Functions for the run.sh files, which source this file and then list their steps.
#
#     DATA=FOLDER experiments/leak/run.sh              run all steps that are not done
#     DATA=FOLDER DRY_RUN=1 experiments/leak/run.sh    print the commands only
#
# DATA      folder with the data sets of docs/guides/data_sets.md
# COHORTS   folder for prepared scans, shared by all experiments; default: cohorts
# RUNS      folder for runs and scores; default: runs/NAME_OF_THE_EXPERIMENT
# PYTHON    Python with maediff; default: .venv/bin/python, else python
#
# Paths are relative to the current folder. A stopped run resumes if run.sh is started again.

set -euo pipefail
# `maediff train` saves its step after Ctrl-C and ends with 0, but the next step needs all steps.
trap 'exit 130' INT TERM HUP

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
: "${DATA:?set DATA to the folder with the data sets of docs/guides/data_sets.md}"
COHORTS=${COHORTS:-cohorts}
RUNS=${RUNS:-runs/$(basename "$(cd "$(dirname "$0")" && pwd)")}
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python
    if [ -x "$ROOT/.venv/bin/python" ]; then PYTHON=$ROOT/.venv/bin/python; fi
fi

[ -n "${DRY_RUN:-}" ] || mkdir -p "$COHORTS" "$RUNS"

maediff() { command "$PYTHON" -m maediff "$@"; }

# Run a script of this repository.
python() { command "$PYTHON" "$ROOT/$1" "${@:2}"; }

# run FILE COMMAND...: run a command unless FILE exists; `-` for a command that resumes by itself.
run() {
    local done_file=$1
    shift
    if [ -n "${DRY_RUN:-}" ]; then
        printf '%q ' "$@"
        echo
    elif [ -e "$done_file" ]; then
        echo "skipped, $done_file exists: $*"
    else
        echo "$*"
        "$@"
    fi
}

# prepare NAME ARGUMENTS...: make the cohort $COHORTS/NAME.
prepare() { run "$COHORTS/$1/cohort.json" maediff preprocess "${@:2}" -o "$COHORTS/$1" --resume; }

# train NAME ARGUMENTS...: train the run $RUNS/NAME.
train() { run - maediff train "${@:2}" -o "$RUNS/$1" --resume; }

# evaluate NAME ARGUMENTS...: score runs into $RUNS/NAME.
evaluate() { run "$RUNS/$1/summary.json" maediff evaluate "${@:2}" -o "$RUNS/$1" --overwrite; }

# sweep ARGUMENTS...: compare settings at test; the scores of all sweeps are in $RUNS/sweep.csv.
sweep() {
    run - python experiments/test_settings/sweep_test_settings.py "$@" --csv "$RUNS/sweep.csv"
}

# healthy_renderings CONTRAST MODEL: the cohort healthy-MODEL, healthy T1w rendered in a contrast.
healthy_renderings() {
    local scans=$COHORTS/healthy-$2-scans
    run "$scans/manifest.csv" \
        python tools/render_contrast.py "$DATA/ds002748" "$scans" "$1" --n 1 --overwrite
    prepare "healthy-$2" "$scans/manifest.csv" --modality "$1" --like "$2"
}

# patients SPLITS MANIFEST OUT: the patients of these splits, with absolute paths.
patients() {
    local folder
    folder=$(cd "$(dirname "$2")" && pwd)
    awk -F, -v OFS=, -v folder="$folder" -v splits=" $1 " '
        NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; print; next }
        index(splits, " " $column["split"] " ") {
            for (name in column) {
                i = column[name]
                if (name ~ /^(image|brain_mask|lesion_mask)$/ && $i) $i = folder "/" $i
            }
            print
        }' "$2" > "$3.part"
    mv "$3.part" "$3"
}

# prepare_val NAME MANIFEST ARGUMENTS...: make a cohort of the validation patients of a manifest.
prepare_val() {
    run "$COHORTS/$1.csv" patients val "$2" "$COHORTS/$1.csv"
    prepare "$1" "$COHORTS/$1.csv" "${@:3}"
}

# patient07 SCAN OUT: a manifest of a scan of the patient with multiple sclerosis, for validation.
patient07() {
    local folder
    folder=$(cd "$DATA/mslub/patient07" && pwd)
    printf 'subject,image,lesion_mask,split,healthy\npatient07,%s,%s,val,0\n' \
        "$folder/$1.nii.gz" "$folder/lesion_mask.nii.gz" > "$2.part"
    mv "$2.part" "$2"
}

# prepare_patient07 MODEL SCAN CONTRAST: the cohort ms-MODEL of this scan.
prepare_patient07() {
    run "$COHORTS/ms-$1.csv" patient07 "$2" "$COHORTS/ms-$1.csv"
    prepare "ms-$1" "$COHORTS/ms-$1.csv" --modality "$3" --like "$1"
}

# phantoms CONTRAST: make the cohort phantoms-CONTRAST, as in most sections of experiments/log.
phantoms() {
    local scans=$COHORTS/phantoms-$1-scans
    run "$scans/manifest.csv" python tools/make_phantoms.py "$scans" --contrast "$1" --train 200 \
        --val 16 --test 16 --healthy-val 4 --healthy-test 4 --overwrite
    prepare "phantoms-$1" "$scans/manifest.csv" --modality "$1" --set registration.enabled=false
}

# Residuals that most sections of experiments/log use: on T1w without and with blurs, and on FLAIR.
DARK=residual=dark,recentre=true
DARK_3_20="$DARK,postprocess.smooth_mm=[3,20],postprocess.median_size=1"
BRIGHT=residual=bright,recentre=true,headroom=true
BLURS_3_20=(--set "postprocess.smooth_mm=[3,20]" --set postprocess.median_size=1)

# start_from_t1 OPTIONS...: prepare the scans of a fine-tuning of `t1` with the code of a patch, and
# $RUNS/init, a copy of `t1` with the options of widen_stem.py. PATCHED is the patched checkout.
start_from_t1() {
    export PYTHONPATH=${PATCHED:-patched-checkout}/src
    prepare t1 "$DATA/ds002748" "$DATA/ds000011" --modality T1w --like t1
    prepare lgg-t1 "$DATA/lgg/t1.csv" --modality T1w --like t1
    run "$RUNS/init/config.json" \
        python experiments/mirrored_input/widen_stem.py t1 "$RUNS/init" "$@"
}

# fine_tune NAME INIT: train $RUNS/NAME on 32,000 slices from a model.
fine_tune() {
    train "$1" maediff --init "$2" --cohort "$COHORTS/t1" --seed 0 \
        --set train.steps=1000 --set train.batch_size=32 --set train.learning_rate=3e-4 \
        --set train.schedule=cosine --set train.warmup_steps=50 --set train.flip=true \
        --set train.ema_decay=0.99 --set train.checkpoint_every=100 --set train.calibration_scans=0
}

# score_like_t1 RUN...: score `t1` and runs on the val patients of lgg, with its post-processing.
score_like_t1() {
    evaluate lgg t1 "$@" --cohort "$COHORTS/lgg-t1" --score-split val \
        --set "postprocess.smooth_mm=[2,20,20]" --set postprocess.smooth_mean=geometric \
        --set postprocess.median_size=1 --set postprocess.symmetry=0.5
}
