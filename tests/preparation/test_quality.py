"""Extraction and registration that went right, and ones gone wrong on purpose, each caught by a flag or an error."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from skimage.filters import threshold_otsu

from helpers.brains import ball, oblique, save
from helpers.heads import fake_extraction, true_brain
from maediff.core.errors import InputError
from maediff.preparation.background import brain_from_background
from maediff.preparation.brain_extraction import BrainConfig
from maediff.preparation.config import PreparationConfig
from maediff.preparation.grid import ATLAS_BOX_MM, GridConfig, atlas_grid
from maediff.preparation.onto_grid import prepare_scan
from maediff.preparation.prepare import prepare
from maediff.preparation.quality import QualityConfig, check_against_atlas, check_contrast
from maediff.preparation.registration import (
    Alignment,
    RegistrationConfig,
    align_to_atlas,
    load_atlas,
)
from maediff.preparation.steps import run_steps
from maediff.scans.inputs.find import find_scans
from maediff.scans.nifti import read_mask, read_nifti
from maediff.scans.volume import Volume

ALWAYS = PreparationConfig(qc=QualityConfig(align="always"))
REGISTERED = PreparationConfig(registration=RegistrationConfig(enabled=True))
pytestmark = pytest.mark.slow  # nilearn alone takes seconds to import


def volume_of(data, affine):
    return Volume(
        np.asarray(data, dtype=np.float32), affine, Path("scan.nii.gz"), data.shape, affine
    )


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def atlas_head(step=3, place=None):
    """(data, brain, affine): the template with a shell around it, on noise, 3 mm; `place` moves it in space."""
    atlas = load_atlas()
    brain = atlas.brain[::step, ::step, ::step]
    affine = (
        (np.eye(4) if place is None else place) @ atlas.affine @ np.diag([step, step, step, 1.0])
    )
    from scipy import ndimage

    far = ndimage.distance_transform_edt(~brain)
    noise = np.random.default_rng(0).integers(1, 9, brain.shape)
    data = np.where(
        brain,
        40 + 160 * atlas.t1[::step, ::step, ::step].clip(0, 1),
        np.where((far > 1) & (far < 3), 230, noise),
    )
    return data.astype(np.float32), brain, affine


def test_the_grid_in_mni_holds_its_brain():
    atlas = load_atlas()
    for axis, (low, high) in enumerate(ATLAS_BOX_MM):
        where = (
            np.flatnonzero(atlas.brain.any(axis=tuple({0, 1, 2} - {axis}))) + atlas.affine[axis, 3]
        )
        assert low <= where[0] - 0.5 <= low + 1 and high - 1 <= where[-1] + 0.5 <= high
    grid = atlas_grid(np.eye(4), GridConfig())
    prepared = prepare_scan(volume_of(atlas.t1, atlas.affine), atlas.brain, to_atlas=np.eye(4))
    assert grid.shape == prepared.image.shape == (96, 96, 78)
    assert prepared.brain.sum() * 8 == pytest.approx(atlas.brain.sum(), rel=0.01)  # nothing is cut
    assert "brain reaches beyond the grid" not in prepared.record["flags"]
    shift = np.eye(4)
    shift[0, 3] = 60
    cut = prepare_scan(volume_of(atlas.t1, atlas.affine), atlas.brain, to_atlas=shift)
    assert "brain reaches beyond the grid" in cut.record["flags"]


def test_a_good_head_is_found_where_it_was_put_and_gets_no_flag():
    place = oblique(np.diag([1.1, 1.05, 1.08, 1.0]), (12.0, -6.0, 5.0))
    place[:3, 3] = [20, -35, 60]
    data, brain, affine = atlas_head(place=place)
    stepped = run_steps(volume_of(data, affine), brain, REGISTERED, modality="T1w")
    assert stepped.flags == [] and stepped.record["atlas_overlap"] > 0.97
    corners = np.array(np.meshgrid([-60, 60], [-90, 60], [-50, 70], [1.0])).reshape(4, -1)
    error_mm = np.linalg.norm((stepped.to_atlas @ place @ corners - corners)[:3], axis=0)
    assert error_mm.max() < 4
    again = align_to_atlas(volume_of(data, affine), brain)
    np.testing.assert_allclose(again.to_atlas, stepped.to_atlas, atol=1e-8)


def test_what_went_wrong_on_purpose_is_flagged():
    data, brain, affine = atlas_head()

    def flags(volume, mask):
        return run_steps(volume, mask, ALWAYS, modality="T1w").flags

    assert flags(volume_of(data, affine), brain) == []
    noise = np.random.default_rng(0).random(data.shape).astype(np.float32)
    found = flags(volume_of(noise, affine), ball(data.shape, affine, (0, -17, 5), 1400))
    assert "does not look like the atlas's brain" in found
    half = brain.copy()
    half[: len(half) // 2] = False
    assert any(
        "overlaps" in flag or "stretched" in flag for flag in flags(volume_of(data, affine), half)
    )
    seen = slice(0, data.shape[2] // 2)
    upper = affine.copy()
    assert any(
        "of the atlas's brain" in f
        for f in flags(volume_of(data[:, :, seen], upper), brain[:, :, seen])
    )
    for axis in (1, 2):
        flip = np.eye(4)
        flip[axis, axis] = -1
        # The file says that up is down: read_nifti would put the voxels in that order.
        wrong = volume_of(np.flip(data, axis).copy(), affine)
        found = flags(wrong, np.flip(brain, axis).copy())
        assert "fits the atlas as well upside down or back to front, if not better" in found


def test_flags_by_hand():
    data, brain, affine = atlas_head()
    volume, config = volume_of(data, affine), QualityConfig()
    record, flags = check_against_atlas(volume, brain, Alignment(np.eye(4), -0.4), config)
    assert flags == [] and record["atlas_overlap"] > 0.98 and record["atlas_coverage"] == 1
    shift = np.eye(4)
    shift[0, 3] = 30
    record, flags = check_against_atlas(volume, brain, Alignment(shift, -0.4), config)
    assert record["atlas_overlap"] < 0.8 and flags[0].startswith("brain overlaps the atlas's by")
    pressed = np.diag([1.5, 1, 1, 1.0])
    assert (
        "stretched 1.50 times to fit the atlas"
        in check_against_atlas(volume, brain, Alignment(pressed, -0.4), config)[1]
    )
    noise = volume_of(np.random.default_rng(0).random(data.shape), affine)
    record, flags = check_against_atlas(noise, brain, Alignment(np.eye(4), 0.1), config)
    assert record["atlas_information"] < 0.02 and len(flags) == 2
    assert abs(record["atlas_correlation"]) < 0.1


def test_a_contrast_that_runs_against_the_said_one_is_flagged():
    data, brain, affine = atlas_head()
    config, found = QualityConfig(), {}
    for kind, values in (("like", data), ("against", data.max() - data)):
        record, flags = check_against_atlas(
            volume_of(values, affine), brain, Alignment(np.eye(4), -0.4), config
        )
        assert flags == []
        found[kind] = {
            contrast: check_contrast(record, contrast, config)
            for contrast in ("T1w", "T2w", "FLAIR")
        }
    wrong = {c: [f"does not look like {c}: check the contrast"] for c in ("T1w", "T2w")}
    assert found["like"] == {"T1w": [], "T2w": wrong["T2w"], "FLAIR": []}
    assert found["against"] == {"T1w": wrong["T1w"], "T2w": [], "FLAIR": []}
    assert check_contrast({}, "T1w", config) == []  # not aligned


@pytest.mark.parametrize(
    ("name", "said", "flagged"), [("T1", "T2w", True), ("T1", "T1w", False), ("T2", "T2w", False)]
)
def test_a_real_scan_of_another_contrast_is_flagged(shared_data, name, said, flagged):
    stepped = run_steps(
        read_nifti(shared_data / "mslub" / "patient07" / f"{name}.nii.gz"),
        None,
        PreparationConfig(registration=RegistrationConfig(enabled=True)),
        modality=said,
    )
    assert (f"does not look like {said}: check the contrast" in stepped.flags) == flagged


def test_a_stripped_scan_upside_down_is_flagged_where_it_is_registered():
    data, brain, affine = atlas_head()
    stripped = np.where(brain, data, 0)
    good = run_steps(volume_of(stripped, affine), None, REGISTERED, modality="T1w")
    assert good.brain_from == "from the zero background" and good.flags == []
    flipped = run_steps(
        volume_of(np.flip(stripped, 2).copy(), affine), None, REGISTERED, modality="T1w"
    )
    assert "fits the atlas as well upside down or back to front, if not better" in flipped.flags


def zeroed_head():
    """(data, brain, affine) of a head on a background of zeros: shell, face and neck."""
    data, brain, affine = atlas_head()
    below = ((0, 0), (0, 10), (20, 0))
    data, brain, affine = np.pad(data, below), np.pad(brain, below), affine.copy()
    affine[2, 3] -= 60
    x, y, z = np.moveaxis(
        np.moveaxis(np.indices(data.shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3], -1, 0
    )
    face = (x / 60) ** 2 + ((y - 45) / 50) ** 2 + ((z + 55) / 70) ** 2 < 1
    neck = ((x / 50) ** 2 + ((y + 30) / 55) ** 2 < 1) & (z < -40)
    data = np.where((face | neck) & ~brain, 90, np.where(data < 10, 0, data)).astype(np.float32)
    return data, brain, np.diag([0.85, 0.85, 0.85, 1.0]) @ affine


@pytest.mark.parametrize(
    "config", [REGISTERED, PreparationConfig()], ids=["registered", "as it lies"]
)
def test_a_head_on_a_background_of_zeros_has_its_brain_extracted_or_is_flagged(config):
    data, brain, affine = zeroed_head()
    volume = volume_of(data, affine)
    assert brain_from_background(volume).sum() > 1.3 * brain.sum()  # taken as stripped at first
    none = PreparationConfig(brain=BrainConfig(tool="none"), registration=config.registration)
    assert (
        "may still have its skull, and no brain could be extracted"
        in run_steps(volume, None, none, modality="T1w").flags
    )
    tools, _ = fake_extraction(lambda _: brain)
    stepped = run_steps(volume, None, config, modality="T1w", tools=tools)
    assert (
        stepped.brain_from == "deepbet"
        and stepped.flags == []
        and "a skull in it" in stepped.notes[-1]
    )
    np.testing.assert_array_equal(stepped.brain, brain)


def test_a_stripped_scan_that_fits_badly_keeps_its_brain():
    data, brain, affine = atlas_head()
    half = np.where(brain & (np.arange(len(data)) < len(data) // 2)[:, None, None], data, 0)
    tools, calls = fake_extraction(lambda volume: volume.data > 0)
    stepped = run_steps(volume_of(half, affine), None, REGISTERED, modality="T1w", tools=tools)
    assert calls and stepped.brain_from == "from the zero background" and stepped.flags


@pytest.mark.parametrize(("folder", "modality"), [("ds000011", "T2w"), ("ixi10", "T1w")])
def test_real_heads_on_a_background_of_zeros(shared_data, folder, modality):
    pytest.importorskip("deepbet")
    volume = read_nifti(find_scans([shared_data / folder], modality)[2].image)
    head = volume.data > 0.3 * threshold_otsu(volume.data[::2, ::2, ::2])
    zeroed = replace(volume, data=np.where(head, volume.data, 0).astype(np.float32))
    before = brain_from_background(zeroed).sum()
    stepped = run_steps(zeroed, None, modality=modality)
    assert (
        stepped.brain_from == "deepbet"
        and stepped.flags == []
        and stepped.brain.sum() < 0.8 * before
    )


def test_real_stripped_scans_go_on_as_they_are(shared_data):
    files = [
        find_scans([shared_data / "ds002748"], "T1w")[0].image,
        shared_data / "mslub" / "patient07" / "FLAIR.nii.gz",
    ]
    files += [
        shared_data / "lgg" / name / "FLAIR.nii.gz"
        for name in ("TCGA_FG_8189_20030516", "TCGA_FG_7634_20000128")
    ]
    for path in files:  # the last two: one that the atlas does not fit, and one of 3250 ml
        volume = read_nifti(path)
        stepped = run_steps(volume, None, REGISTERED, modality="FLAIR")
        assert stepped.brain_from == "from the zero background", path
        np.testing.assert_array_equal(stepped.brain, brain_from_background(volume))


def test_an_empty_head_fails():
    data, brain, affine = atlas_head()
    tools, _ = fake_extraction(lambda volume: np.zeros(volume.data.shape, dtype=bool))
    with pytest.raises(InputError, match=r"scan\.nii\.gz: brain extraction .* no brain"):
        run_steps(volume_of(np.where(brain, 3, data), affine), None, modality="T1w", tools=tools)


def test_a_registered_scan_is_the_same_in_any_frame(tmp_path):
    tools, _ = fake_extraction(true_brain)
    data, _, affine = atlas_head(place=oblique(np.diag([1.05, 1.1, 1.0, 1.0]), (6.0, 3.0, -4.0)))
    images = []
    for axes in ("RAS", "LAS", "PSR"):
        volume = read_nifti(save(tmp_path / f"{axes}.nii.gz", data, affine, axes))
        stepped = run_steps(volume, None, REGISTERED, modality="T1w", tools=tools)
        images.append(prepare_scan(volume, stepped.brain, to_atlas=stepped.to_atlas).image)
    turned = volume_of(data, oblique(affine, (5.0, 4.0, -6.0)))
    stepped = run_steps(turned, None, REGISTERED, modality="T1w", tools=tools)
    images.append(prepare_scan(turned, stepped.brain, to_atlas=stepped.to_atlas).image)
    np.testing.assert_allclose(images[1], images[0], atol=1e-4)
    np.testing.assert_allclose(images[2], images[0], atol=1e-4)
    assert (
        np.abs(images[3] - images[0]).mean() < 0.01
    )  # another frame: the metric samples other points


@pytest.mark.parametrize("folder", ["ixi10", "ds000011"])
def test_real_heads_with_deepbet(shared_data, folder):
    pytest.importorskip("deepbet")
    volume = read_nifti(find_scans([shared_data / folder], "T1w")[0].image)
    stepped = run_steps(volume, None, modality="T1w")
    assert stepped.brain_from == "deepbet" and stepped.flags == []
    brain_ml = stepped.brain.sum() * np.prod(volume.spacing_mm) / 1000
    assert 1000 < brain_ml < 1900 and stepped.record["atlas_overlap"] >= 0.90


def test_real_heads_gone_wrong_are_caught(shared_data, tmp_path):
    """Upside down, half a head, no head but noise, and a head with nothing in it: flagged, or failed by name."""
    pytest.importorskip("deepbet")
    path = find_scans([shared_data / "ixi10"], "T1w")[0].image
    volume = read_nifti(path)
    image = nib.as_closest_canonical(nib.load(path))
    data = np.asarray(image.dataobj).astype(np.float32)
    brain = run_steps(
        volume, None, PreparationConfig(qc=QualityConfig(align="never")), modality="T1w"
    ).brain
    noise = np.random.default_rng(0).normal(100, 20, data.shape)
    middle = image.affine[:3, :3] @ (np.array(data.shape) / 2) + image.affine[:3, 3]
    heads = {
        "upside_down": np.flip(data, 2).copy(),
        "half": np.where(np.arange(len(data))[:, None, None] < len(data) // 2, 0, data),
        "noise": np.where(
            ball(data.shape, image.affine, middle, 1500), noise, np.abs(noise) / 20
        ).astype(np.float32),
        "empty": np.where(brain, 2, data),
    }
    for name, head in heads.items():
        scan = read_nifti(save(tmp_path / f"{name}.nii.gz", head.astype(np.float32), image.affine))
        try:
            prepared = prepare(scan, PreparationConfig(modality="T1w"))
        except InputError as error:
            assert name in str(error)
            continue
        assert prepared.on_grid.record["flags"], name


def test_a_given_mask_of_the_real_t2_is_the_moved_one(shared_data):
    """The T1's brain on the in-plane T2, against deepbet on the T2 itself."""
    pytest.importorskip("deepbet")
    ref = find_scans([shared_data / "ds000011"], "T2w")[0]
    assert ref.t1 is not None
    volume = read_nifti(ref.image)
    moved = run_steps(volume, None, modality="T2w", t1=ref.t1)
    alone = run_steps(volume, None, modality="T2w")
    assert moved.brain_from.startswith("deepbet on ") and moved.flags == []
    assert dice(moved.brain, alone.brain) > 0.93


def test_masks_are_read_on_the_grid(tmp_path):
    data, brain, affine = atlas_head()
    scan = save(tmp_path / "s.nii.gz", data, affine, "LPI")
    mask = save(tmp_path / "m.nii.gz", brain, affine, "PSR")
    volume = read_nifti(scan)
    stepped = run_steps(volume, read_mask(mask, volume), modality="T1w")
    assert stepped.record == {}  # nothing is aligned where a mask was given
