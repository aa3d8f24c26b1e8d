"""Copy a model with a first convolution for more inputs; the weights of the new ones are zero.

    python experiments/mirrored_input/widen_stem.py MODEL OUT --inputs 2 --set mirror=true

The copy has the given settings, which only code with the patch of an experiment knows. It
reconstructs exactly as the model, until it is trained further.
"""

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from maediff.core.config import parse_settings
from maediff.models.reference import locate

STEM = "unet.stem.weight"


def widen(model: Path, out: Path, inputs: int, settings: Mapping[str, Any]) -> None:
    """Write the copy of a model folder.

    Args:
        model: folder with config.json and model.safetensors.
        out: folder that does not exist.
        inputs: slices that the network sees; the first is the perturbed slice.
        settings: settings of the method to add.
    """
    out.mkdir(parents=True)
    shutil.copy(model / "train_subjects.json", out)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config["config"] |= settings
    (out / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    weights = load_file(model / "model.safetensors")
    for name in [name for name in weights if name.endswith(STEM)]:
        kernel = weights[name]
        weights[name] = torch.cat([kernel, *[torch.zeros_like(kernel)] * (inputs - 1)], dim=1)
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
    parser.add_argument("--inputs", type=int, default=1, help="slices that the network sees")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = build_parser().parse_args(argv)
    widen(locate(args.model), args.out, args.inputs, parse_settings(args.settings))


if __name__ == "__main__":
    main()
