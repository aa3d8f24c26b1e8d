"""Steps on the scan's own grid: brain extraction, the T1w's mask, registration, flags."""

from dataclasses import replace

import numpy as np
import pytest

from helpers.brains import dice, made_brain, made_volume, oblique, save
from helpers.heads import (
    atlas_brain,
    atlas_head,
    fake_extraction,
    made_head,
    true_brain,
    zeroed_head,
)
from helpers.options import REGISTERED, UNALIGNED, UNREGISTERED
from maediff.core.errors import InputError
from maediff.preparation.background import brain_from_background
from maediff.preparation.bias_correction import BiasConfig
from maediff.preparation.brain_extraction import BrainConfig
from maediff.preparation.onto_grid import prepare_scan
from maediff.preparation.quality import QualityConfig
from maediff.preparation.registration import Alignment
from maediff.preparation.steps import Tools, run_steps
from maediff.scans.inputs.find import find_scans
from maediff.scans.nifti import read_mask, read_nifti

T1W = UNREGISTERED.for_modality("T1w")
REGISTERED_T1W = REGISTERED.for_modality("T1w")
UNALIGNED_T2W = UNALIGNED.for_modality("T2w")
TURNED = "fits the atlas as well upside down or back to front, if not better"


def test_brain_of_raw_scan_is_extracted():
    tools, calls = fake_extraction(true_brain)
    head, brain, affine = made_head()
    raw = made_volume(head, affine, "raw")
    stepped = run_steps(raw, None, UNALIGNED.for_modality("T1w"), tools=tools)
    assert stepped.brain_from == "deepbet" and stepped.extracted
    assert dice(stepped.brain, brain) > 0.98
    stripped = made_volume(np.where(brain, head, 0), affine, "stripped")
    stepped = run_steps(stripped, None, T1W, tools=tools)
    assert stepped.brain_from == "from the zero background" and not stepped.extracted
    given = run_steps(made_volume(head, affine, "given"), brain, T1W, tools=tools)
    assert (
        given.brain_from == "given" and given.record == {"empty_slices": 0} and not given.extracted
    )
    assert calls == ["raw"]


def test_no_tool():
    head, _, affine = made_head()
    config = replace(T1W, brain=BrainConfig(tool="none"))
    with pytest.raises(
        InputError, match=r"scan\.nii\.gz: raw scan with skull, and `brain\.tool=none`"
    ):
        run_steps(made_volume(head, affine), None, config)


def test_label_map():
    data, brain, affine = made_brain((30, 36, 30), (6.0, 6.0, 5.0))
    labels = np.where(brain, np.round(3 * data / data.max()) + 1, 0)
    with pytest.raises(
        InputError,
        match=r"only 3 different values in the brain, so it looks like a mask or a label map",
    ):
        run_steps(made_volume(labels, affine), None, T1W)


def test_no_modality():
    data, _, affine = made_brain()
    with pytest.raises(ValueError, match=r"config\.modality is None"):
        run_steps(made_volume(data, affine), None, UNREGISTERED)


def test_single_slice():
    data, _, affine = made_brain((60, 72, 50))
    volume = made_volume(data[:, :, 25:26], affine)
    with pytest.raises(
        InputError, match=r"scan\.nii\.gz: .* too thin .*`registration\.enabled=false`"
    ) as caught:
        run_steps(volume, None, REGISTERED_T1W)
    assert "\n" not in str(caught.value)
    stepped = run_steps(volume, None, replace(T1W, qc=QualityConfig(align="always")))
    assert stepped.flags == ["could not be aligned to the atlas"] and stepped.to_atlas is None
    with pytest.raises(InputError, match=r"scan\.nii\.gz: N4 .*`bias\.enabled=false`") as caught:
        run_steps(volume, None, replace(T1W, bias=BiasConfig(enabled=True)))
    assert "\n" not in str(caught.value)


def test_bias_correction_before_registration():
    data, brain, affine = made_brain((30, 36, 30), (4.0, 4.0, 4.0))
    field = np.full(data.shape, 2.0, dtype=np.float32)
    aligned = []

    def align(volume, brain, quick):
        aligned.append((volume.data, quick))
        return Alignment(np.eye(4), -0.5)

    tools = Tools(
        correct_bias=lambda volume, *_: (replace(volume, data=volume.data / field), field),
        align=align,
        check_alignment=lambda *_: ({}, []),
    )
    config = replace(REGISTERED_T1W, bias=BiasConfig(enabled=True))
    stepped = run_steps(made_volume(data, affine), brain, config, tools=tools)
    np.testing.assert_array_equal(stepped.volume.data, data / 2)
    np.testing.assert_array_equal(aligned[0][0], data / 2)
    assert aligned[0][1] is False  # the complete registration, not the quick one
    assert stepped.bias_field is field and stepped.record["bias_range"] == [2.0, 2.0]
    assert stepped.record["to_atlas"] == np.eye(4).tolist()


def test_mask_of_t1(tmp_path):
    tools, calls = fake_extraction(true_brain)
    head, brain, affine = made_head((60, 72, 30), (2.0, 2.0, 3.5))
    folder = tmp_path / "sub-1" / "anat"
    t1 = save(folder / "sub-1_T1w.nii.gz", head, affine)
    t2 = save(folder / "sub-1_T2w.nii.gz", head[:, :, ::2], affine @ np.diag([1, 1, 2.0, 1]))
    (ref,) = find_scans([t2])
    assert ref.t1 == t1
    volume = read_nifti(t2)
    stepped = run_steps(volume, None, UNALIGNED_T2W, t1=ref.t1, tools=tools)
    assert stepped.brain_from == "deepbet on sub-1_T1w.nii.gz, moved rigidly"
    assert dice(stepped.brain, brain[:, :, ::2]) > 0.95
    without_t1 = replace(UNALIGNED_T2W, brain=BrainConfig(from_t1=False))
    stepped = run_steps(volume, None, without_t1, t1=ref.t1, tools=tools)
    assert stepped.brain_from == "deepbet"
    t1.write_bytes(b"")
    damaged = run_steps(volume, None, UNALIGNED_T2W, t1=ref.t1, tools=tools)
    assert damaged.brain_from == "deepbet" and "0 bytes" in damaged.notes[0]
    assert damaged.flags == ["its T1 could not be used"]
    assert calls == ["sub-1_T1w.nii.gz", "sub-1_T2w.nii.gz", "sub-1_T2w.nii.gz"]


def test_wrong_alignment_with_t1(tmp_path, monkeypatch):
    head, brain, affine = made_head((44, 52, 30), (3.0, 3.0, 4.0))
    t1 = save(tmp_path / "s_T1w.nii.gz", head, affine)
    t2 = read_nifti(save(tmp_path / "s_T2w.nii.gz", 255 - head, affine))
    tools, _ = fake_extraction(lambda _: brain)
    assert run_steps(t2, brain, UNALIGNED_T2W, t1=t1, tools=tools).flags == []
    wrong = np.eye(4)
    wrong[0, 3] = 10
    monkeypatch.setattr("maediff.preparation.brain_extraction.align_rigidly", lambda *_: wrong)
    stepped = run_steps(t2, None, UNALIGNED_T2W, t1=t1, tools=tools)
    assert stepped.brain_from == "deepbet" and "its T1 could not be used" in stepped.flags


def test_given_mask_is_not_aligned(tmp_path):
    head, brain, affine = made_head()
    scan = save(tmp_path / "s.nii.gz", head, affine, "LPI")
    mask = save(tmp_path / "m.nii.gz", brain, affine, "PSR")
    volume = read_nifti(scan)
    stepped = run_steps(volume, read_mask(mask, volume), T1W)
    assert stepped.record == {"empty_slices": 0}
    np.testing.assert_array_equal(stepped.brain, brain)


@pytest.mark.slow
@pytest.mark.parametrize("config", [REGISTERED_T1W, T1W], ids=["registered", "unregistered"])
def test_head_on_zeros(config):
    data, brain, affine = zeroed_head()
    volume = made_volume(data, affine)
    assert brain_from_background(volume).sum() > 1.3 * brain.sum()  # looks stripped at first
    without_tool = replace(config, brain=BrainConfig(tool="none"))
    flags = run_steps(volume, None, without_tool).flags
    assert "may still have its skull, and no brain could be extracted" in flags
    tools, _ = fake_extraction(lambda _: brain)
    stepped = run_steps(volume, None, config, tools=tools)
    assert stepped.brain_from == "deepbet" and stepped.flags == []
    assert "a skull in it" in stepped.notes[-1]
    np.testing.assert_array_equal(stepped.brain, brain)


@pytest.mark.slow
def test_stripped_scan_with_bad_fit_keeps_its_brain():
    data, _, affine = atlas_brain()
    half = np.where((np.arange(len(data)) < len(data) // 2)[:, None, None], data, 0)
    tools, calls = fake_extraction(lambda volume: volume.data > 0)
    stepped = run_steps(made_volume(half, affine), None, REGISTERED_T1W, tools=tools)
    assert calls and stepped.brain_from == "from the zero background" and stepped.flags


@pytest.mark.slow
def test_stripped_scan_upside_down():
    data, _, affine = atlas_brain()
    upright = run_steps(made_volume(data, affine), None, REGISTERED_T1W)
    assert upright.brain_from == "from the zero background" and upright.flags == []
    flipped = run_steps(made_volume(np.flip(data, 2).copy(), affine), None, REGISTERED_T1W)
    assert TURNED in flipped.flags


@pytest.mark.slow
def test_empty_head():
    data, brain, affine = atlas_head()
    tools, _ = fake_extraction(lambda volume: np.zeros(volume.data.shape, dtype=bool))
    volume = made_volume(np.where(brain, 3, data), affine)
    with pytest.raises(InputError, match=r"scan\.nii\.gz: brain extraction .* no brain"):
        run_steps(volume, None, T1W, tools=tools)


@pytest.mark.slow
def test_registered_scan_in_any_frame(tmp_path):
    tools, _ = fake_extraction(true_brain)
    data, _, affine = atlas_head(place=oblique(np.diag([1.05, 1.1, 1.0, 1.0]), (6.0, 3.0, -4.0)))
    volumes = [
        read_nifti(save(tmp_path / f"{axes}.nii.gz", data, affine, axes))
        for axes in ("RAS", "LAS", "PSR")
    ]
    volumes.append(made_volume(data, oblique(affine, (5.0, 4.0, -6.0))))
    images = []
    for volume in volumes:
        stepped = run_steps(volume, None, REGISTERED_T1W, tools=tools)
        images.append(prepare_scan(volume, stepped.brain, to_atlas=stepped.to_atlas).image)
    np.testing.assert_allclose(images[1], images[0], atol=1e-4)
    np.testing.assert_allclose(images[2], images[0], atol=1e-4)
    # In a rotated frame, the metric samples other points.
    assert np.abs(images[3] - images[0]).mean() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["ixi10", "ds000011"])
def test_real_heads(shared_data, folder):
    pytest.importorskip("deepbet")
    volume = read_nifti(find_scans([shared_data / folder], "T1w")[0].image)
    stepped = run_steps(volume, None, T1W)
    assert stepped.brain_from == "deepbet" and stepped.flags == []
    brain_ml = stepped.brain.sum() * np.prod(volume.spacing_mm) / 1000
    assert 1000 < brain_ml < 1900 and stepped.record["atlas_overlap"] >= 0.90


@pytest.mark.slow
def test_real_stripped_scans(shared_data):
    files = [
        find_scans([shared_data / "ds002748"], "T1w")[0].image,
        shared_data / "mslub" / "patient07" / "FLAIR.nii.gz",
        shared_data / "lgg" / "TCGA_FG_8189_20030516" / "FLAIR.nii.gz",  # does not fit the atlas
        shared_data / "lgg" / "TCGA_FG_7634_20000128" / "FLAIR.nii.gz",  # 3250 ml
    ]
    for path in files:
        volume = read_nifti(path)
        stepped = run_steps(volume, None, REGISTERED.for_modality("FLAIR"))
        assert stepped.brain_from == "from the zero background", path
        np.testing.assert_array_equal(stepped.brain, brain_from_background(volume))


@pytest.mark.slow
def test_real_mask_of_t1(shared_data):
    """The T1w's brain on the in-plane T2w is similar to deepbet's on the T2w itself."""
    pytest.importorskip("deepbet")
    ref = find_scans([shared_data / "ds000011"], "T2w")[0]
    assert ref.t1 is not None
    volume = read_nifti(ref.image)
    config = UNREGISTERED.for_modality("T2w")
    moved = run_steps(volume, None, config, t1=ref.t1)
    extracted = run_steps(volume, None, config)
    assert moved.brain_from.startswith("deepbet on ") and moved.flags == []
    assert dice(moved.brain, extracted.brain) > 0.93
