"""How much noise leaks into the visible cells of the feature map, and how much the autoencoder's output uses it.

python experiments/measure_leak.py RUN COHORT [--t 250] [--slices 32]

Two noise draws in the same patch of the same slices give two feature maps F. The leak of a cell is
|F1 - F2| / |F1| over its channels; it would be 0 in every visible cell if nothing leaked.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from maediff.cohort.cohort import Cohort
from maediff.diffusion.patches import insert, noised_cells, patch_mask
from maediff.diffusion.process import forward_process
from maediff.methods.maediff import MAEDiff
from maediff.models.model import load_model
from maediff.nn.mae import patchify


@torch.inference_mode()
def main() -> None:
    """Print the leak by distance from the patch, in cells."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run")
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--t", type=int, default=250)
    parser.add_argument("--slices", type=int, default=32)
    args = parser.parse_args()
    method, _ = load_model(args.run)
    assert isinstance(method, MAEDiff)
    config = method.config
    images = Cohort.open(args.cohort).training_slices("val").images
    chosen = np.linspace(0, len(images) - 1, args.slices).astype(int)
    x0 = 2 * torch.from_numpy(np.ascontiguousarray(images[chosen])).float()[:, None] / 255 - 1
    b, t = len(x0), torch.full((len(x0),), args.t)
    corners = torch.tensor([[0, 0]]).expand(
        b, 2
    )  # the patch in a corner leaves cells up to three away visible
    mask = patch_mask(corners, config.p, config.size)[:, None]
    maps = []
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        noise = config.noise_of((b, config.p, config.p), generator, "cpu")
        x_t = forward_process(x0, insert(noise, corners, config.size), method.alpha_bar[t])
        maps.append(method.unet.encode(torch.where(mask, x_t, x0), t)[0])
    cells = [patchify(feature_map, config.r // config.unet.d) for feature_map in maps]
    leak = ((cells[0] - cells[1]).norm(dim=-1) / cells[0].norm(dim=-1)).mean(0)
    rows, noised = (
        config.size // config.r,
        noised_cells(corners, config.p, config.size, config.r)[0],
    )
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(rows), indexing="ij")
    inside = torch.nonzero(noised.view(rows, rows))
    distance = (
        torch.stack([torch.maximum((y - i).abs(), (x - j).abs()) for i, j in inside])
        .amin(0)
        .flatten()
    )
    for d in range(int(distance.max()) + 1):
        where = "in the patch" if d == 0 else f"{d} cell(s) away"
        print(
            f"{where:14}  leak {leak[distance == d].mean():.4f}  ({int((distance == d).sum())} cells)"
        )


if __name__ == "__main__":
    main()
