"""Synthetic heads: a synthetic brain inside a bright shell, on a background of noise."""

import numpy as np
from scipy import ndimage

from helpers.brains import made_brain
from maediff.preparation.atlas.template import load_atlas
from maediff.preparation.brain_extraction import check_extracted_brain
from maediff.preparation.steps import Tools


def made_head(shape=(60, 72, 14), spacing=(2.0, 2.0, 6.0), seed=0):
    """Return (data, brain mask, affine) of a raw scan."""
    data, brain, affine = made_brain(shape, spacing, seed=seed)
    reach_mm = ndimage.distance_transform_edt(~brain, sampling=spacing)
    noise = np.random.default_rng(seed).integers(1, 9, shape)
    head = np.where(brain, data, np.where((reach_mm > 3) & (reach_mm < 8), 220, noise))
    return head.astype(np.float32), brain, affine


def fake_extraction(extract_brain, **tools):
    """Replace brain extraction by `extract_brain(volume)`, with the checks of the real one.

    Returns:
        Tools, and the list of the scans whose brain they extract; it grows with each call.
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


def atlas_brain(step=3, place=None):
    """Return (data, brain mask, affine) of the stripped template, 3 mm; `place` moves it."""
    atlas = load_atlas()
    brain = atlas.brain[::step, ::step, ::step]
    place = np.eye(4) if place is None else place
    affine = place @ atlas.affine @ np.diag([step, step, step, 1.0])
    data = np.where(brain, 40 + 160 * atlas.t1[::step, ::step, ::step].clip(0, 1), 0)
    return data.astype(np.float32), brain, affine


def atlas_head(step=3, place=None):
    """Return (data, brain mask, affine) of the template in a bright shell, on noise."""
    data, brain, affine = atlas_brain(step, place)
    distance = ndimage.distance_transform_edt(~brain)
    noise = np.random.default_rng(0).integers(1, 9, brain.shape)
    shell = np.where((distance > 1) & (distance < 3), 230, noise)
    return np.where(brain, data, shell).astype(np.float32), brain, affine


def zeroed_head():
    """Return (data, brain mask, affine) of a head on zeros: skull, face and neck."""
    data, brain, affine = atlas_head()
    below = ((0, 0), (0, 10), (20, 0))
    data, brain, affine = np.pad(data, below), np.pad(brain, below), affine.copy()
    affine[2, 3] -= 60
    voxels = np.moveaxis(np.indices(data.shape), 0, -1)
    x, y, z = np.moveaxis(voxels @ affine[:3, :3].T + affine[:3, 3], -1, 0)
    face = (x / 60) ** 2 + ((y - 45) / 50) ** 2 + ((z + 55) / 70) ** 2 < 1
    neck = ((x / 50) ** 2 + ((y + 30) / 55) ** 2 < 1) & (z < -40)
    data = np.where((face | neck) & ~brain, 90, np.where(data < 10, 0, data)).astype(np.float32)
    return data, brain, np.diag([0.85, 0.85, 0.85, 1.0]) @ affine
