"""Renderings of T1w brains in other contrasts."""

import csv
import shutil

import numpy as np
import pytest
from scipy import ndimage

from helpers.brains import save
from helpers.options import QUIET, UNREGISTERED
from helpers.tissues import SPACING, made_t1
from maediff.core.errors import InputError
from maediff.core.files import MARKER
from maediff.core.types import CEILING
from maediff.synthetic.rendering import CONFIGS, render_contrast, render_scans


@pytest.mark.parametrize("contrast", ["FLAIR", "T2w"])
def test_order_of_intensities(head, tissues, contrast):
    _, brain, truth = head
    for seed in range(5):
        rendering = render_contrast(
            tissues, brain, SPACING, CONFIGS[contrast], np.random.default_rng(seed)
        )
        source_slices = np.clip(
            (
                rendering.to_source[2, 2] * np.arange(rendering.image.shape[2])
                + rendering.to_source[2, 3]
            ),
            0,
            43,
        )
        inner = [
            ndimage.binary_erosion(t, iterations=1)[:, :, source_slices.round().astype(int)]
            for t in truth
        ]
        fluid, grey, white = (np.median(rendering.image[mask & rendering.brain]) for mask in inner)
        assert fluid < white <= 1.1 * grey if contrast == "FLAIR" else fluid > grey > white
        assert (rendering.image[~rendering.brain] == 0).all()
        assert (rendering.image >= 0).all()


def test_the_seed_decides_the_rendering(head, tissues):
    brain = head[1]
    first, again, other = (
        render_contrast(tissues, brain, SPACING, CONFIGS["T2w"], np.random.default_rng(seed))
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.image, again.image)
    assert first.image.shape != other.image.shape or not np.allclose(first.image, other.image)


def test_slices_keep_their_position(head, tissues):
    """Thick slices cover the same brain: volume and both ends agree."""
    brain = head[1]
    config = CONFIGS["T2w"]
    thick = [
        render_contrast(tissues, brain, SPACING, config, np.random.default_rng(seed))
        for seed in range(6)
    ]
    assert len({rendering.image.shape for rendering in thick}) > 1
    for rendering in thick:
        step = rendering.to_source[2, 2]
        assert rendering.brain.sum() * step == pytest.approx(brain.sum(), rel=0.05)
        ends = (
            np.flatnonzero(rendering.brain.any((0, 1)))[[0, -1]] * step + rendering.to_source[2, 3]
        )
        np.testing.assert_allclose(ends, np.flatnonzero(brain.any((0, 1)))[[0, -1]], atol=step)


@pytest.fixture(scope="module")
def t1_manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("t1")
    lines = ["subject,image,brain_mask,split"]
    affine = np.diag([*SPACING, 1.0])
    for number, split in enumerate(("train", "val")):
        image, brain, _ = made_t1(seed=number)
        save(folder / f"s{number}" / "t1.nii.gz", image, affine)
        save(folder / f"s{number}" / "brain.nii.gz", brain, affine)
        lines.append(f"s{number},s{number}/t1.nii.gz,s{number}/brain.nii.gz,{split}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder / "manifest.csv"


@pytest.mark.slow
def test_rendered_cohort(t1_manifest, tmp_path):
    from maediff.cohort.cohort import Cohort
    from maediff.cohort.preprocess import preprocess
    from maediff.cohort.splits import person_code
    from maediff.scans.inputs.find import find_scans

    assert render_scans(t1_manifest, tmp_path / "a", "FLAIR", n=2, seed=5) == []
    rows = list(csv.DictReader((tmp_path / "a" / "manifest.csv").read_text("utf-8").splitlines()))
    assert [(row["subject"], row["session"], row["split"]) for row in rows] == [
        ("s0", "render-1", "train"),
        ("s0", "render-2", "train"),
        ("s1", "render-1", "val"),
        ("s1", "render-2", "val"),
    ]
    assert (
        preprocess(
            [tmp_path / "a" / "manifest.csv"],
            tmp_path / "cohort",
            modality="FLAIR",
            preparation=UNREGISTERED,
            run=QUIET,
        )
        == 0
    )
    cohort = Cohort.open(tmp_path / "cohort")
    assert [row.name for row in cohort.split("train")] == ["s0_render-1", "s0_render-2"]
    t1 = find_scans([t1_manifest], "T1w")  # renderings keep the person
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


def test_failed_renderings(t1_manifest, tmp_path):
    table = t1_manifest.with_name("other.csv")
    lines = t1_manifest.read_text("utf-8").splitlines()
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


def test_input_inside_output(t1_manifest, tmp_path):
    inside = tmp_path / "out" / "scans"
    shutil.copytree(t1_manifest.parent, inside)
    (tmp_path / "out" / MARKER).touch()
    with pytest.raises(InputError, match="holds the input"):
        render_scans(inside / "manifest.csv", tmp_path / "out", "FLAIR", overwrite=True)
    assert (inside / "s0" / "t1.nii.gz").is_file()
