"""Synthetic data: brains with lesions, and T1w scans rendered as FLAIR or T2w."""

from maediff.synthetic.brain import Phantom, PhantomConfig, healthy_brain
from maediff.synthetic.dataset import healthy_subject, lesioned_subject, make_phantom_dataset
from maediff.synthetic.lesion import add_lesion
from maediff.synthetic.rendering import render_scans

__all__ = [
    "Phantom",
    "PhantomConfig",
    "add_lesion",
    "healthy_brain",
    "healthy_subject",
    "lesioned_subject",
    "make_phantom_dataset",
    "render_scans",
]
