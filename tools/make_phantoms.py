"""Write the frozen phantom mix (maediff.synthetic.dataset.MIX) in one contrast, or fewer of its subjects.

python tools/make_phantoms.py OUT [T1w|T2w|FLAIR] [N_TRAIN N_VAL N_TEST N_HEALTHY_VAL N_HEALTHY_TEST]

Subject i of a split is the same whatever the counts, so a smaller set is the beginning of the whole one.
"""

import sys
from pathlib import Path
from typing import Any

from maediff.synthetic.dataset import make_phantom_dataset

NAMES = ("n_train", "n_val", "n_test", "n_healthy_val", "n_healthy_test")

if __name__ == "__main__":
    contrast: Any = sys.argv[2] if len(sys.argv) > 2 else "T1w"
    counts: Any = dict(zip(NAMES, map(int, sys.argv[3:]), strict=False))
    print(make_phantom_dataset(Path(sys.argv[1]), contrast=contrast, **counts))
