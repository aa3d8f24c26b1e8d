"""Write the frozen phantom mix (maediff.phantom.MIX) in one contrast.

python scripts/make_phantoms.py OUT [T1w|T2w|FLAIR]
"""

import sys
from pathlib import Path

from maediff.phantom import make_phantom_dataset

if __name__ == "__main__":
    print(make_phantom_dataset(Path(sys.argv[1]), contrast=sys.argv[2] if len(sys.argv) > 2 else "T1w"))  # type: ignore[arg-type]
