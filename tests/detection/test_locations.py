"""Locations of points whose anatomy is known from published MNI152 coordinates and atlases."""

import pytest

from maediff.detection.locations import locate

POINTS = [
    ("precentral gyrus, hand knob", (-38.0, -20.0, 58.0), "left", "frontal lobe"),
    ("postcentral gyrus", (44.0, -30.0, 54.0), "right", "parietal lobe"),
    ("pars opercularis", (-50.0, 14.0, 16.0), "left", "frontal lobe"),
    ("Heschl's gyrus", (-46.0, -20.0, 6.0), "left", "temporal lobe"),
    ("fusiform gyrus", (42.0, -50.0, -20.0), "right", "temporal lobe"),
    ("calcarine cortex", (8.0, -86.0, 4.0), "right", "occipital lobe"),
    ("occipital pole", (-20.0, -98.0, 0.0), "left", "occipital lobe"),
    ("precuneus", (-6.0, -60.0, 44.0), "left", "parietal lobe"),
    ("frontal pole", (26.0, 58.0, 6.0), "right", "frontal lobe"),
    ("hippocampus", (-28.0, -22.0, -14.0), "left", "temporal lobe"),
    ("amygdala", (22.0, -4.0, -18.0), "right", "temporal lobe"),
    ("temporal pole", (-40.0, 14.0, -34.0), "left", "temporal lobe"),
    ("putamen", (-26.0, 4.0, 2.0), "left", "basal ganglia and thalamus"),
    ("thalamus", (12.0, -18.0, 8.0), "right", "basal ganglia and thalamus"),
    ("caudate nucleus", (-12.0, 14.0, 8.0), "left", "basal ganglia and thalamus"),
    ("pons", (4.0, -26.0, -32.0), "right", "brainstem"),
    ("cerebellar hemisphere", (-30.0, -62.0, -36.0), "left", "cerebellum"),
    ("vermis", (0.0, -62.0, -18.0), "midline", "cerebellum"),
    ("angular gyrus", (-46.0, -62.0, 34.0), "left", "parietal lobe"),
    ("middle temporal gyrus", (58.0, -34.0, -4.0), "right", "temporal lobe"),
    ("lingual gyrus", (-14.0, -74.0, -6.0), "left", "occipital lobe"),
    ("supplementary motor area", (-4.0, 0.0, 60.0), "left", "frontal lobe"),
]


@pytest.mark.parametrize(
    ("name", "mm", "side", "lobe"), POINTS, ids=[point[0] for point in POINTS]
)
def test_points_of_each_lobe_are_located(name, mm, side, lobe):
    found = locate(mm)
    assert (found.side, found.lobe) == (side, lobe)


def test_points_of_each_tissue_are_located():
    assert locate((-18.0, 32.0, 8.0)).tissue == "white matter, periventricular"
    assert locate((0.0, -2.0, -2.0)).tissue == "cerebrospinal fluid"  # third ventricle
    assert locate((28.0, -22.0, 40.0)).tissue.startswith("white matter")
    assert locate((-12.0, 14.0, 8.0)).tissue == "grey matter"  # caudate nucleus


def test_points_outside_the_brain_have_a_location():
    assert str(locate((90.0, 0.0, 0.0))).startswith("right ")
