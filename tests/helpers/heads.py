"""Synthetic heads: a synthetic brain inside a bright shell, on a background of noise."""

import numpy as np
from scipy import ndimage

from helpers.brains import made_brain
from maediff.preparation.brain_extraction import EXTRACTORS, check_extracted_brain
from maediff.preparation.steps import Tools


def made_head(shape=(60, 72, 14), spacing=(2.0, 2.0, 6.0), seed=0):
    """Return (data, brain mask, affine) of a raw scan."""
    data, brain, affine = made_brain(shape, spacing, seed=seed)
    reach_mm = ndimage.distance_transform_edt(~brain, sampling=spacing)
    noise = np.random.default_rng(seed).integers(1, 9, shape)
    head = np.where(brain, data, np.where((reach_mm > 3) & (reach_mm < 8), 220, noise))
    return head.astype(np.float32), brain, affine


def fake_deepbet(monkeypatch, extract_brain):
    """Replace deepbet by `extract_brain(volume)`; return the list of the scans that it gets."""
    calls = []

    def extract(volume, config):
        calls.append(volume.source.name)
        return extract_brain(volume)

    monkeypatch.setattr(
        "maediff.preparation.brain_extraction._choose", lambda volume, tool: "deepbet"
    )
    monkeypatch.setitem(EXTRACTORS, "deepbet", extract)
    return calls


def fake_extraction(extract_brain, **tools):
    """Replace brain extraction by `extract_brain(volume)`, with the checks of the real one.

    Returns the tools for `prepare` and its callers, and the list of the scans whose brain they extract.
    """
    calls = []

    def extract(volume, config):
        calls.append(volume.source.name)
        brain = extract_brain(volume)
        check_extracted_brain(volume, brain, "deepbet")
        return brain, "deepbet"

    return Tools(extract_brain=extract, **tools), calls


def true_brain(volume):
    """Return the brain of a synthetic head: brighter than noise, darker than skull."""
    inside = (volume.data >= 30) & (volume.data < 210)
    labels, _ = ndimage.label(inside)
    return np.asarray(labels == 1 + np.argmax(np.bincount(labels.ravel())[1:]))
