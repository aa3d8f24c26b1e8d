"""
Detect a lesion in a scan
=========================

A synthetic FLAIR brain gets a bright lesion, and the shipped model ``flair`` detects it.
"""

# %%
# Make a scan
# -----------
# The brain is warped from the MNI152 template that nilearn ships. The lesion is known exactly.

from maediff.synthetic import PhantomConfig, add_lesion, healthy_brain

healthy = healthy_brain((7, 1), PhantomConfig(contrast="FLAIR"))
scan = add_lesion(healthy, "bright", "large", (7, 2))

# %%
# Detect
# ------
# ``detect`` takes a file, a DICOM folder, a ``Volume``, or an array with its affine.

import maediff

model = maediff.load("flair", device="cpu")
result = model.detect(scan.image, affine=scan.affine, brain_mask=scan.brain)
print("detected:", f"{result.volume_ml:.1f} ml", "in regions:", len(result.regions))
print("score:", f"{result.score:.3f}", "threshold:", f"{result.threshold:.3f}")
print("flags:", result.quality.flags or "none")

# %%
# The slice with most lesion; the true lesion has a cyan outline.

import matplotlib.pyplot as plt
import numpy as np

k = int(np.argmax(scan.lesion.sum((0, 1))))
white = np.percentile(scan.image[scan.brain], 99.5)
images = {
    "scan": (scan.image, white),
    "healthy reference": (result.healthy_reference * result.brain_mask, white),
    "anomaly map": (result.anomaly_map, 3 * result.threshold),
    "detected": (result.anomaly_mask, 1),
}
figure, axes = plt.subplots(1, 4, figsize=(10, 3.2), layout="constrained")
for axis, (title, (image, top)) in zip(axes, images.items(), strict=True):
    axis.imshow(image[:, :, k].T, origin="lower", cmap="gray", vmin=0, vmax=top)
    axis.contour(scan.lesion[:, :, k].T, levels=[0.5], colors="cyan", linewidths=0.8)
    axis.set_title(title)
    axis.set_axis_off()

# %%
# Compare with the truth
# ----------------------

overlap = (result.anomaly_mask & scan.lesion).sum()
dice = 2 * overlap / (result.anomaly_mask.sum() + scan.lesion.sum())
print(f"Dice {dice:.2f}")
