"""
Patch diffusion step by step
============================

MAEDiff noises one patch, reconstructs it from its clean surroundings, and averages the patches.
This example runs each step with the shipped model ``flair`` on one slice.
"""

# %%
# A slice with a lesion
# ---------------------
# The slice is padded to the model's grid, and its intensities are scaled to [0, 1].

import matplotlib.pyplot as plt
import numpy as np
import torch

from maediff.synthetic import PhantomConfig, add_lesion, healthy_brain

healthy = healthy_brain((7, 1), PhantomConfig(contrast="FLAIR"))
scan = add_lesion(healthy, "bright", "large", (7, 2))
k = int(np.argmax(scan.lesion.sum((0, 1))))
size = 96
image = np.zeros((size, size), np.float32)
plane = scan.image[:, 2:98, k].T[::-1]
image[:, 8:88] = plane
low, high = np.percentile(scan.image[scan.brain], [1, 99])
x = torch.from_numpy(np.where(image > 0, (image - low) / (high - low), 0)).clamp(0, 1)
x = x.float()[None, None]

# %%
# Upper-level patches and sub-level cells
# ---------------------------------------
# A patch has p x p pixels and is shifted by s pixels. The masked autoencoder works on cells of
# r x r pixels, and sees only the cells that the patch does not touch.

import maediff
from maediff.diffusion.patches import PatchGrid, insert, noised_cells, patch_mask

method = maediff.load("flair", device="cpu").model.method
config = method.config
grid = PatchGrid(config.size, config.p, config.s)
print(f"p={config.p}, s={config.s}, r={config.r}: {len(grid.corners)} patches at", grid.starts)

corner = grid.corners[:1]
mask = patch_mask(corner, config.p, size)[:, None]
noised = noised_cells(corner, config.p, size, config.r)
print(f"{int(noised.sum())} of {noised.numel()} cells are noised")

# %%
# Noise one patch
# ---------------
# x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) eps inside the patch, and the clean slice outside.

from maediff.diffusion.process import forward_process

x0 = 2 * x - 1
generator = torch.Generator().manual_seed(0)
t = torch.tensor([config.t_test[0]])
noise = config.sample_noise((1, config.p, config.p), generator, x0.device)
x_t = forward_process(x0, insert(noise, corner, size), method.alpha_bar[t])
perturbed = torch.where(mask, x_t, x0)

# %%
# Reconstruct all patches and average them
# ----------------------------------------
# The shipped models add no noise at test (``noise_test=0``), which detects more lesions.

with torch.inference_mode():
    prediction = method.predict(x, slice_ids=torch.tensor([k]), seed=0)

titles = ("slice", "one noised patch", "healthy reference", "residual")
images = (x, (perturbed + 1) / 2, prediction.reconstruction, prediction.anomaly_map)
figure, axes = plt.subplots(1, 4, figsize=(10, 3), layout="constrained")
for axis, title, shown in zip(axes, titles, images, strict=True):
    axis.imshow(shown[0, 0], cmap="gray", vmin=0, vmax=0.5 if title == "residual" else 1)
    axis.set_title(title)
    axis.set_axis_off()
