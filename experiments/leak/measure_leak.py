"""Measure how much noise of the noised patch leaks into the visible cells of the feature map.

    python experiments/leak/measure_leak.py RUN COHORT --t 250 --slices 32

RUN is a MAEDiff run. Its U-Net encodes the same slices twice, with different noise in the same
patch:

    leak of a cell = |F1 - F2| / |F1|    F1, F2: the two feature maps; norm over channels

The leak would be 0 in each visible cell if convolutions and normalisation did not mix pixels. The
script prints the mean leak by distance from the patch, in cells. The patch is in a corner of the
slice, so that visible cells are up to three cells away.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from maediff.cohort.cohort import Cohort
from maediff.core.errors import InputError
from maediff.diffusion.patches import insert, noised_cells, patch_mask
from maediff.diffusion.process import forward_process
from maediff.methods.maediff import MAEDiff
from maediff.models.model import read_model
from maediff.nn.mae import patchify


@torch.inference_mode()
def leak_by_cell(method: MAEDiff, x0: Float[Tensor, "b 1 h w"], t: int) -> Float[Tensor, " n"]:
    """Return the mean leak of each cell, row by row, for a patch at (0, 0) with noise of level t.

    Args:
        x0: slices in [-1, 1].
    """
    config, b = method.config, len(x0)
    times = torch.full((b,), t)
    corners = torch.zeros(b, 2, dtype=torch.int64)
    mask = patch_mask(corners, config.p, config.size)[:, None]
    cells = []
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        noise = config.sample_noise((b, config.p, config.p), generator, "cpu")
        noise = insert(noise, corners, config.size)
        x_t = forward_process(x0, noise, method.alpha_bar[times])
        feature_map = method.unet.encode(torch.where(mask, x_t, x0), times)[0]
        cells.append(patchify(feature_map, config.r // config.unet.d))
    return ((cells[0] - cells[1]).norm(dim=-1) / cells[0].norm(dim=-1)).mean(0)


def distance_from_patch(method: MAEDiff) -> Int[Tensor, " n"]:
    """Return the distance of each cell from the patch at (0, 0), in cells; 0 inside the patch."""
    config = method.config
    corner = torch.zeros(1, 2, dtype=torch.int64)
    rows = config.size // config.r
    noised = noised_cells(corner, config.p, config.size, config.r)[0].view(rows, rows)
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(rows), indexing="ij")
    distances = [torch.maximum((y - i).abs(), (x - j).abs()) for i, j in torch.nonzero(noised)]
    return torch.stack(distances).amin(0).flatten()


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="run folder or name of a MAEDiff model")
    parser.add_argument("cohort", type=Path, help="cohort made by `maediff preprocess`")
    parser.add_argument("--t", type=int, default=250, help="noise level; default: %(default)s")
    parser.add_argument(
        "--slices", type=int, default=32, help="number of val slices; default: %(default)s"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the mean leak for each distance."""
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        method = read_model(args.run).method
        if not isinstance(method, MAEDiff):
            raise InputError(f"{args.run}: a {type(method).__name__}; the leak is one of MAEDiff")
        if not 0 <= args.t < method.config.steps:
            raise InputError(f"--t {args.t}: must be from 0 to {method.config.steps - 1}")
        images = Cohort.open(args.cohort).training_slices("val").images
    except InputError as error:
        parser.exit(2, f"error: {error}\n")
    chosen = np.linspace(0, len(images) - 1, args.slices).astype(int)
    x0 = 2 * torch.from_numpy(np.ascontiguousarray(images[chosen])).float()[:, None] / 255 - 1
    leak, distance = leak_by_cell(method, x0, args.t), distance_from_patch(method)
    for d in range(int(distance.max()) + 1):
        where = "in the patch" if d == 0 else f"{d} cell(s) away"
        at_distance = distance == d
        count = int(at_distance.sum())
        print(f"{where:14}  leak {leak[at_distance].mean():.4f}  ({count} cells)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
