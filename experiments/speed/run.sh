#!/usr/bin/env bash
# Measure sizes and speed; needs no data set. DEVICE=cuda measures training on a GPU.
# With the path of an older checkout as argument, only compare `detect` of both (8 minutes).
DATA=${DATA:-none}
. "$(dirname "$0")/../common.sh"

if [ $# -gt 0 ]; then
    run - python experiments/speed/compare_detect.py "$@"
    exit
fi
DEVICE=${DEVICE:-cpu}
for preset in tiny small; do
    run - python experiments/speed/method_sizes.py --preset $preset
done
run - python experiments/speed/noise_share.py --preset tiny
run - python experiments/speed/time_metrics.py
run - python experiments/speed/training_speed.py tiny maediff 16 --device "$DEVICE"
run - maediff benchmark --preset tiny --device "$DEVICE"
if [ "$DEVICE" = cuda ]; then
    run - python experiments/speed/training_speed.py tiny maediff 16 --device cuda --no-graphs
    run - python experiments/speed/training_speed.py paper maediff 32 --device cuda \
        --precision bf16 --memory-gb 24 --kernels
fi
