"""Quality control: scans that are fine, and errors made on purpose."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from skimage.filters import threshold_otsu

from helpers.brains import ball, made_brain, made_volume, save
from helpers.heads import atlas_head
from helpers.options import REGISTERED, UNALIGNED, UNREGISTERED
from maediff.core.errors import InputError
from maediff.preparation.background import brain_from_background
from maediff.preparation.prepare import prepare
from maediff.preparation.quality import (
    QualityConfig,
    check_against_atlas,
    check_contrast,
    check_voxels,
)
from maediff.preparation.registration import Alignment
from maediff.preparation.steps import run_steps
from maediff.scans.inputs.find import find_scans
from maediff.scans.nifti import read_nifti

CONFIG = QualityConfig()
UNTURNED = -0.4
TURNED = "fits the atlas as well upside down or back to front, if not better"


def test_empty_voxels():
    data, brain, affine = made_brain()
    assert check_voxels(made_volume(data, affine), brain, CONFIG)[1] == []
    data[20:40, 20:50, 10:40] = 0
    record, flags = check_voxels(made_volume(data, affine), brain, CONFIG)
    assert record["empty_share"] > 0.05 and flags == ["many empty voxels in the brain"]


@pytest.mark.parametrize("wrong", [{"min_overlap": 2}, {"max_empty": -1}, {"max_stretch": 0.9}])
def test_wrong_settings(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        QualityConfig(**wrong)


@pytest.mark.slow
def test_flags_by_hand():
    data, brain, affine = atlas_head()
    volume = made_volume(data, affine)
    record, flags = check_against_atlas(volume, brain, Alignment(np.eye(4), UNTURNED), CONFIG)
    assert flags == [] and record["atlas_overlap"] > 0.98 and record["atlas_coverage"] == 1
    shift = np.eye(4)
    shift[0, 3] = 30
    record, flags = check_against_atlas(volume, brain, Alignment(shift, UNTURNED), CONFIG)
    assert record["atlas_overlap"] < 0.8 and flags[0].startswith("brain overlaps the atlas's by")
    stretched = Alignment(np.diag([1.5, 1, 1, 1.0]), UNTURNED)
    flags = check_against_atlas(volume, brain, stretched, CONFIG)[1]
    assert "stretched 1.50 times to fit the atlas" in flags
    noise = made_volume(np.random.default_rng(0).random(data.shape), affine)
    record, flags = check_against_atlas(noise, brain, Alignment(np.eye(4), 0.1), CONFIG)
    assert record["atlas_information"] < 0.02 and len(flags) == 2
    assert abs(record["atlas_correlation"]) < 0.1


@pytest.mark.slow
def test_an_inverted_brain_contradicts_t1w():
    data, brain, affine = atlas_head()
    modalities = ("T1w", "T2w", "FLAIR")
    results = {}
    for kind, values in (("like T1w", data), ("inverted", data.max() - data)):
        record, flags = check_against_atlas(
            made_volume(values, affine), brain, Alignment(np.eye(4), UNTURNED), CONFIG
        )
        assert flags == []
        results[kind] = {name: check_contrast(record, name, CONFIG) for name in modalities}
    wrong = {name: [f"does not look like {name}"] for name in modalities}
    like_t1w, like_t2w = ([f"looks like {name}, not like FLAIR"] for name in ("T1w", "T2w"))
    assert results["like T1w"] == {"T1w": [], "T2w": wrong["T2w"], "FLAIR": like_t1w}
    assert results["inverted"] == {"T1w": wrong["T1w"], "T2w": [], "FLAIR": like_t2w}
    assert check_contrast({}, "T1w", CONFIG) == []  # not aligned


@pytest.mark.slow
def test_errors_on_purpose():
    config = replace(UNREGISTERED, qc=QualityConfig(align="always")).for_modality("T1w")
    data, brain, affine = atlas_head()

    def find_flags(values, mask):
        return run_steps(made_volume(values, affine), mask, config).flags

    assert find_flags(data, brain) == []
    noise = np.random.default_rng(0).random(data.shape).astype(np.float32)
    flags = find_flags(noise, ball(data.shape, affine, (0, -17, 5), 1400))
    assert "does not look like the atlas's brain" in flags
    half = brain.copy()
    half[: len(half) // 2] = False
    assert any("overlaps" in flag or "stretched" in flag for flag in find_flags(data, half))
    lower = slice(0, data.shape[2] // 2)
    flags = find_flags(data[:, :, lower], brain[:, :, lower])
    assert any("of the atlas's brain" in flag for flag in flags)
    for axis in (1, 2):  # the header states the opposite direction
        flags = find_flags(np.flip(data, axis).copy(), np.flip(brain, axis).copy())
        assert TURNED in flags


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "modality", "flagged"),
    [("T1", "T2w", True), ("T1", "T1w", False), ("T2", "T2w", False)],
)
def test_real_contrast(shared_data, name, modality, flagged):
    volume = read_nifti(shared_data / "mslub" / "patient07" / f"{name}.nii.gz")
    stepped = run_steps(volume, None, REGISTERED.for_modality(modality))
    assert (f"does not look like {modality}" in stepped.flags) == flagged


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "modality"), [("ds000011", "T2w"), ("ixi10", "T1w")])
def test_real_heads_on_zeros(shared_data, folder, modality):
    pytest.importorskip("deepbet")
    volume = read_nifti(find_scans([shared_data / folder], modality)[2].image)
    head = volume.data > 0.3 * threshold_otsu(volume.data[::2, ::2, ::2])
    zeroed = replace(volume, data=np.where(head, volume.data, 0).astype(np.float32))
    before = brain_from_background(zeroed).sum()
    stepped = run_steps(zeroed, None, UNREGISTERED.for_modality(modality))
    assert stepped.brain_from == "deepbet" and stepped.flags == []
    assert stepped.brain.sum() < 0.8 * before


@pytest.mark.slow
def test_real_heads_with_errors(shared_data, tmp_path):
    """Each is flagged, or fails with its name in the message."""
    pytest.importorskip("deepbet")
    path = find_scans([shared_data / "ixi10"], "T1w")[0].image
    volume = read_nifti(path)
    image = nib.as_closest_canonical(nib.load(path))
    data = np.asarray(image.dataobj).astype(np.float32)
    brain = run_steps(volume, None, UNALIGNED.for_modality("T1w")).brain
    noise = np.random.default_rng(0).normal(100, 20, data.shape)
    middle = image.affine[:3, :3] @ (np.array(data.shape) / 2) + image.affine[:3, 3]
    in_ball = ball(data.shape, image.affine, middle, 1500)
    first_half = np.arange(len(data))[:, None, None] < len(data) // 2
    heads = {
        "upside_down": np.flip(data, 2).copy(),
        "half": np.where(first_half, 0, data),
        "noise": np.where(in_ball, noise, np.abs(noise) / 20),
        "empty": np.where(brain, 2, data),
    }
    for name, head in heads.items():
        scan = read_nifti(save(tmp_path / f"{name}.nii.gz", head.astype(np.float32), image.affine))
        try:
            prepared = prepare(scan, UNREGISTERED.for_modality("T1w"))
        except InputError as error:
            assert name in str(error)
            continue
        assert prepared.on_grid.record["flags"], name
