"""tools/readme_picture.py: the synthetic lesion and the picture, with a detector that copies."""

from types import SimpleNamespace

import numpy as np

from helpers.scripts import ROOT, load_script

readme_picture = load_script("tools/readme_picture.py")


def test_dark_lesion_is_dark_and_inside_the_brain():
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = [-60, -80, -30]
    brain = np.zeros((36, 36, 30), bool)
    brain[3:-3, 3:-3, 3:-3] = True
    image = np.where(brain, 100, 0).astype(np.float32)
    ill, lesion = readme_picture.add_dark_lesion(image, affine, brain)
    assert 5 < lesion.sum() * 0.064 < 60  # ml
    assert ill[lesion].mean() < 70
    assert (lesion <= brain).all()
    changed = ill != image
    assert (changed <= brain).all()
    assert changed.sum() < 4 * lesion.sum()


def test_picture_has_a_labelled_row_for_each_example(monkeypatch):
    brain = np.ones((8, 10, 4), bool)
    lesion = np.zeros_like(brain)
    lesion[2:5, 3:6, 2] = True
    image = np.random.default_rng(0).random(brain.shape, dtype=np.float32)
    result = SimpleNamespace(
        healthy_reference=image,
        brain_mask=brain,
        anomaly_map=image,
        anomaly_mask=lesion,
        threshold=0.3,
        volume_ml=3.2,
    )
    model = SimpleNamespace(detect=lambda *_, **__: result)
    monkeypatch.setattr("maediff.load", lambda name, device: model, raising=False)
    examples = [
        readme_picture.Example("ill", "t1", image, np.eye(4), brain, lesion),
        readme_picture.Example("healthy", "t1", image, np.eye(4), brain, np.zeros_like(brain)),
    ]
    figure = readme_picture.draw(examples)
    labels = [axis.get_ylabel() for axis in figure.axes]
    assert [label for label in labels if label] == ["ill", "healthy"]
    assert [axis.get_title() for axis in figure.axes[:4]] == list(readme_picture.COLUMNS)
    assert figure.axes[3].get_xlabel() == "3 ml"


def test_picture_of_the_readme_is_small():
    assert (ROOT / "docs/images/readme.png").stat().st_size < 300_000
