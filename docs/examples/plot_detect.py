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

healthy = healthy_brain(7, PhantomConfig(contrast="FLAIR"))
scan = add_lesion(healthy, "bright", "large", 2)

# %%
# Detect
# ------
# ``detect`` takes a file, a DICOM folder, a ``Volume``, or an array with its affine.

import maediff

model = maediff.load("flair", device="cpu")
result = model.detect(scan.image, affine=scan.affine, brain_mask=scan.brain)
print(f"{len(result.regions)} regions, {result.volume_ml:.1f} ml, score {result.score:.3f}")
print("flags:", result.quality.flags or "none")

# %%
# Look at the planes through the highest value of the anomaly map.

import matplotlib.pyplot as plt
import numpy as np

k = int(np.argmax(scan.lesion.sum((0, 1))))
images = {
    "scan": scan.image,
    "healthy reference": result.healthy_reference * result.brain_mask,
    "anomaly map": result.anomaly_map,
    "detected": result.anomaly_mask,
}
figure, axes = plt.subplots(1, 4, figsize=(10, 3.2))
for axis, (title, image) in zip(axes, images.items(), strict=True):
    axis.imshow(image[:, :, k].T, origin="lower", cmap="gray")
    axis.contour(scan.lesion[:, :, k].T, levels=[0.5], colors="cyan", linewidths=0.8)
    axis.set_title(title)
    axis.set_axis_off()

# %%
# Compare with the truth
# ----------------------

overlap = (result.anomaly_mask & scan.lesion).sum()
dice = 2 * overlap / (result.anomaly_mask.sum() + scan.lesion.sum())
print(f"Dice {dice:.2f}")
