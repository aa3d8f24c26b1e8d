"""Write synthetic brains in one contrast: the phantoms that results are reported on, or fewer.

    python tools/make_phantoms.py OUT --contrast T2w --train 0 --val 16 --test 16
    maediff preprocess OUT/manifest.csv -o OUT_cohort --modality T2w

Each subject depends only on the seed, its split and its number. A smaller set therefore holds the
first subjects of the larger one. The default is the whole mix, `maediff.synthetic.dataset.MIX`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from maediff.core.errors import InputError
from maediff.synthetic.dataset import MIX, make_phantom_dataset


def count(text: str) -> int:
    """Convert an argument to a number of subjects.

    Raises:
        ValueError: `text` is not a whole number, or is negative.
    """
    number = int(text)
    if number < 0:
        raise ValueError(f"{number} is negative")
    return number


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="output folder; must be empty or absent")
    parser.add_argument(
        "--contrast", choices=("T1w", "T2w", "FLAIR"), default="T1w", help="default: %(default)s"
    )
    subjects = {
        "train": ("n_train", "healthy subjects for training"),
        "val": ("n_val", "validation subjects with a lesion"),
        "test": ("n_test", "test subjects with a lesion"),
        "healthy-val": ("n_healthy_val", "healthy validation subjects"),
        "healthy-test": ("n_healthy_test", "healthy test subjects"),
    }
    for option, (field, meaning) in subjects.items():
        parser.add_argument(
            f"--{option}",
            dest=field,
            metavar="N",
            type=count,
            default=getattr(MIX, field),
            help=f"number of {meaning}; default: %(default)s",
        )
    parser.add_argument(
        "--seed",
        type=count,
        default=MIX.seed,
        help="seed of all random numbers; default: %(default)s, the seed of the reported results",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="empty an existing output folder first"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write the phantoms and print the path of their manifest."""
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        print(make_phantom_dataset(**vars(args)))
    except InputError as error:
        parser.exit(2, f"error: {error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
