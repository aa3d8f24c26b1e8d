"""Copy a model with a first convolution for two slices; the weights of the second are zero.

    python experiments/mirrored_input/widen_stem.py MODEL OUT

The copy has `mirror: true` in its settings, which only code with `mirrored.patch` knows. It
reconstructs exactly as the model, until it is trained further.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from maediff.models.reference import locate

STEM = "unet.stem.weight"


def widen(model: Path, out: Path) -> None:
    """Write the copy of a model folder.

    Args:
        model: folder with config.json and model.safetensors.
        out: folder that does not exist.
    """
    out.mkdir(parents=True)
    shutil.copy(model / "train_subjects.json", out)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config["config"]["mirror"] = True
    (out / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    weights = load_file(model / "model.safetensors")
    for name in [name for name in weights if name.endswith(STEM)]:
        kernel = weights[name]
        weights[name] = torch.cat([kernel, torch.zeros_like(kernel)], dim=1)
    with safe_open(model / "model.safetensors", "pt") as file:
        metadata = file.metadata()
    save_file(weights, out / "model.safetensors", metadata=metadata)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", help="run folder or name of a model")
    parser.add_argument("out", type=Path, metavar="OUT", help="a folder that does not exist")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = build_parser().parse_args(argv)
    widen(locate(args.model), args.out)


if __name__ == "__main__":
    main()
