"""Tissues of made-up T1w brains, and their renderings in other contrasts."""

import csv
import shutil

import numpy as np
import pytest
from scipy import ndimage

from helpers.brains import save
from maediff.core.errors import InputError
from maediff.core.files import MARKER
from maediff.core.types import CEILING
from maediff.synthetic.rendering import CONFIGS, render, render_scans
from maediff.synthetic.tissues import segment, ventricles

SPACING = np.array([3.0, 3.0, 3.0])
LEVELS = {"fluid": 0.15, "grey": 0.55, "white": 0.9}


def made_head(seed=0, bias=0.0, noise=0.02):
    """(T1w, brain, truth of fluid, grey and white): shells of fluid, grey and white matter around a ventricle."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(
        *[SPACING[0] * (np.arange(n) - (n - 1) / 2) for n in (48, 58, 44)], indexing="ij"
    )
    radius = np.sqrt((x / 65) ** 2 + (y / 80) ** 2 + (z / 58) ** 2)
    brain, folds = radius <= 1, 0.07 * np.sin(x / 9 + seed) * np.sin(y / 8) * np.sin(z / 10)
    labels = np.where(radius > 0.95, 0, np.where(radius + folds > 0.78, 1, 2))
    labels[np.sqrt((x / 18) ** 2 + (y / 30) ** 2 + (z / 15) ** 2) < 1] = 0
    truth = np.stack([(labels == k) & brain for k in range(3)])
    image = np.tensordot(list(LEVELS.values()), truth, 1)
    image = ndimage.gaussian_filter(image, 0.4) * np.exp(
        bias * x / 65
    ) + noise * rng.standard_normal(x.shape)
    return (np.clip(image, 0.01, None) * 300 * brain).astype(np.float32), brain, truth


@pytest.fixture(scope="module")
def head():
    return made_head(bias=0.2)


@pytest.fixture(scope="module")
def tissues(head):
    return segment(head[0], head[1], SPACING)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_tissues_are_found_despite_bias_and_noise(head, tissues):
    _, brain, truth = head
    scores = [dice(tissues.fractions[k] > 0.5, truth[k]) for k in range(3)]
    assert scores[0] > 0.75
    assert min(scores[1:]) > 0.85
    total = tissues.fractions.sum(0)
    np.testing.assert_allclose(total[brain], 1, atol=1e-5)
    assert (total[~brain] == 0).all()
    assert tissues.levels[0] < tissues.levels[1] < tissues.levels[2]
    assert (tissues.texture[~brain] == 0).all()


def test_the_ventricle_is_found_and_has_no_wall_of_grey_matter(head, tissues):
    middle = tuple(n // 2 for n in head[1].shape)
    inside = ventricles(tissues.fractions[0], tissues.depth_mm, SPACING)
    assert inside[middle]
    assert inside.sum() < 0.2 * head[1].sum()
    assert tissues.to_ventricle_mm[middle] == 0
    wall = (tissues.to_ventricle_mm > 0) & (tissues.to_ventricle_mm < 5)
    assert tissues.fractions[1][wall].mean() < 0.05
    x = np.indices(head[1].shape) - np.array(middle).reshape(3, 1, 1, 1)
    filled = np.where((np.linalg.norm(x, axis=0) < 14) & (head[0] < 200), 270, head[0]).astype(
        np.float32
    )
    assert np.isinf(segment(filled, head[1], SPACING).to_ventricle_mm).all()


@pytest.mark.parametrize("brain", [np.zeros((4, 4, 4), bool), np.ones((4, 4, 4), bool)])
def test_no_brain_or_no_contrast_is_refused(brain):
    with pytest.raises(InputError, match="empty or has no contrast"):
        segment(np.ones((4, 4, 4), np.float32), brain, SPACING)


def test_a_brain_without_tissues_is_refused(head):
    with pytest.raises(InputError, match="cannot be told apart"):
        segment((100 + head[0] / 1000) * head[1], head[1], SPACING)


@pytest.mark.parametrize("contrast", ["FLAIR", "T2w"])
def test_a_rendering_has_the_order_of_its_contrast(head, tissues, contrast):
    _, brain, truth = head
    for seed in range(5):
        one = render(tissues, brain, SPACING, CONFIGS[contrast], np.random.default_rng(seed))
        source_slices = np.clip(
            (one.to_source[2, 2] * np.arange(one.image.shape[2]) + one.to_source[2, 3]), 0, 43
        )
        inner = [
            ndimage.binary_erosion(t, iterations=1)[:, :, source_slices.round().astype(int)]
            for t in truth
        ]
        fluid, grey, white = (np.median(one.image[mask & one.brain]) for mask in inner)
        assert fluid < white <= 1.1 * grey if contrast == "FLAIR" else fluid > grey > white
        assert (one.image[~one.brain] == 0).all()
        assert (one.image >= 0).all()


def test_a_rendering_is_a_function_of_the_generator(head, tissues):
    brain = head[1]
    first, again, other = (
        render(tissues, brain, SPACING, CONFIGS["T2w"], np.random.default_rng(seed))
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.image, again.image)
    assert first.image.shape != other.image.shape or not np.allclose(first.image, other.image)


def test_slices_keep_their_place(head, tissues):
    """Thick slices cover the same brain: its volume and its lower and upper end agree to a slice."""
    brain = head[1]
    config = CONFIGS["T2w"]
    thick = [
        render(tissues, brain, SPACING, config, np.random.default_rng(seed)) for seed in range(6)
    ]
    assert len({one.image.shape for one in thick}) > 1
    for one in thick:
        step = one.to_source[2, 2]
        assert one.brain.sum() * step == pytest.approx(brain.sum(), rel=0.05)
        ends = np.flatnonzero(one.brain.any((0, 1)))[[0, -1]] * step + one.to_source[2, 3]
        np.testing.assert_allclose(ends, np.flatnonzero(brain.any((0, 1)))[[0, -1]], atol=step)


@pytest.fixture(scope="module")
def t1_manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("t1")
    lines = ["subject,image,brain_mask,split"]
    affine = np.diag([*SPACING, 1.0])
    for number, split in enumerate(("train", "val")):
        image, brain, _ = made_head(seed=number)
        save(folder / f"s{number}" / "t1.nii.gz", image, affine)
        save(folder / f"s{number}" / "brain.nii.gz", brain, affine)
        lines.append(f"s{number},s{number}/t1.nii.gz,s{number}/brain.nii.gz,{split}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder / "manifest.csv"


@pytest.mark.slow
def test_a_cohort_is_rendered_and_preprocessed(t1_manifest, tmp_path):
    from maediff.cohort.cohort import Cohort
    from maediff.cohort.preprocess import preprocess
    from maediff.cohort.splits import person_code
    from maediff.scans.inputs.find import find_scans

    assert render_scans(t1_manifest, tmp_path / "a", "FLAIR", n=2, seed=5) == []
    rows = list(csv.DictReader((tmp_path / "a" / "manifest.csv").read_text().splitlines()))
    assert [(row["subject"], row["session"], row["split"]) for row in rows] == [
        ("s0", "render-1", "train"),
        ("s0", "render-2", "train"),
        ("s1", "render-1", "val"),
        ("s1", "render-2", "val"),
    ]
    assert (
        preprocess(
            [tmp_path / "a" / "manifest.csv"], tmp_path / "cohort", modality="FLAIR", quiet=True
        )
        == 0
    )
    cohort = Cohort.open(tmp_path / "cohort")
    assert [row.name for row in cohort.split("train")] == ["s0_render-1", "s0_render-2"]
    t1 = find_scans([t1_manifest], "T1w")  # a model that saw a rendering has seen the person
    assert {person_code(ref.dataset, ref.subject) for ref in t1} == {
        person_code(row.dataset, row.subject) for row in cohort.rows
    }
    assert all(row.healthy for row in cohort.rows)
    images = [cohort.load(row).images for row in cohort.rows]
    assert all(image.min() >= 0 and 1 <= image.max() < CEILING for image in images)

    render_scans(t1_manifest, tmp_path / "b", "FLAIR", n=1, seed=5)
    name = rows[0]["image"]
    assert (tmp_path / "a" / name).read_bytes()[10:] == (tmp_path / "b" / name).read_bytes()[10:]
    with pytest.raises(InputError, match="exists"):
        render_scans(t1_manifest, tmp_path / "b", "FLAIR")


def test_what_cannot_be_rendered_is_named(t1_manifest, tmp_path):
    table = t1_manifest.with_name("other.csv")
    lines = t1_manifest.read_text().splitlines()
    table.write_text(f"{lines[0]},healthy\n{lines[1]},1\n{lines[2]},0\n")
    failed = render_scans(table, tmp_path / "a", "T2w", n=1)
    assert len(failed) == 1
    assert "s1" in failed[0]
    assert "not healthy" in failed[0]
    table.write_text(f"{lines[0]},healthy\n{lines[2]},0\n")
    with pytest.raises(InputError, match="no scan could be rendered"):
        render_scans(table, tmp_path / "b", "T2w")
    with pytest.raises(InputError, match="at least one"):
        render_scans(table, tmp_path / "c", "T2w", n=0)


def test_what_is_rendered_is_never_emptied_for_the_output(t1_manifest, tmp_path):
    inside = tmp_path / "out" / "scans"
    shutil.copytree(t1_manifest.parent, inside)
    (tmp_path / "out" / MARKER).touch()
    with pytest.raises(InputError, match="holds the input"):
        render_scans(inside / "manifest.csv", tmp_path / "out", "FLAIR", overwrite=True)
    assert (inside / "s0" / "t1.nii.gz").is_file()
