"""
Calibration: what a threshold promises
======================================

Two thresholds come from healthy scans. ``--fpr`` limits the share of voxels and promises nothing
about a scan. ``--scan-fpr`` limits the share of flagged healthy scans, on average.
This example checks both on simulated scans.
"""

# %%
# Simulated healthy scans
# -----------------------
# Each scan has its own level of residual, as scans of one scanner do.

import numpy as np

from maediff.anomaly.thresholds import (
    conformal_threshold,
    scans_needed,
    smallest_alpha,
    threshold_from_healthy,
)

rng = np.random.default_rng(0)


def simulate(n):
    """Return n anomaly maps of 4 x 16 x 16 voxels."""
    levels = rng.lognormal(-3, 0.3, n)
    return [level * rng.gamma(2, 0.5, (4, 16, 16)) for level in levels]


calibration, new = simulate(19), simulate(400)
brain = np.ones((4, 16, 16), bool)

# %%
# Voxel-wise rate
# ---------------
# At most 1 % of the voxels of the calibration scans exceed the threshold. Nearly every new healthy
# scan still has some voxels above it.

threshold = threshold_from_healthy(calibration, [brain] * len(calibration), fpr=0.01)
share = np.mean([(scan > threshold).mean() for scan in new])
flagged = np.mean([(scan > threshold).any() for scan in new])
print(f"threshold {threshold:.3f}: {share:.1%} of new voxels, {flagged:.0%} of new scans")

# %%
# Scan-wise rate
# --------------
# The score of a scan is the lowest threshold at which no region is left. Without removal of small
# components, this is the maximum of the map.

scores = [scan.max() for scan in calibration]
alpha = 0.1
conformal = conformal_threshold(scores, alpha)
print(
    f"threshold {conformal:.3f}: {np.mean([scan.max() > conformal for scan in new]):.0%} flagged"
)
print(f"19 scans allow {smallest_alpha(19):.3f}; alpha 0.01 needs {scans_needed(0.01)} scans")

# %%
# The promise is an average
# -------------------------
# One calibration set may do worse, another better.
# The mean over calibration sets is at most alpha.

import matplotlib.pyplot as plt

rates = []
new_scores = np.array([scan.max() for scan in new])
for _ in range(300):
    scores = [scan.max() for scan in simulate(19)]
    rates.append(np.mean(new_scores > conformal_threshold(scores, alpha)))
figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
axis.hist(rates, bins=25, color="steelblue")
axis.axvline(alpha, color="black", linestyle="--", label="alpha")
axis.axvline(np.mean(rates), color="darkorange", label="mean over calibration sets")
axis.set_xlabel("share of new healthy scans that is flagged")
axis.legend()
print(f"mean rate {np.mean(rates):.3f}")
