"""Raw scans: the steps before the grid, each by itself and in `preprocess`; deepbet stood in for where it can be."""

import csv
import json
import logging
import os
import stat
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import generate_uid
from scipy import ndimage

from helpers.brains import ball, made_brain, oblique, save
from helpers.dicom import write_series
from helpers.heads import fake_extraction, made_head, true_brain
from helpers.options import QUIET, UNREGISTERED
from maediff.cohort.cohort import Cohort
from maediff.cohort.preprocess import preprocess
from maediff.core.errors import InputError
from maediff.core.options import RunOptions
from maediff.detection.to_scan import from_grid
from maediff.preparation.bias_correction import BiasConfig, correct_bias
from maediff.preparation.brain_extraction import (
    EXTRACTORS,
    BrainConfig,
    brain_from_t1,
    extract_brain,
)
from maediff.preparation.config import PreparationConfig
from maediff.preparation.grid import GridConfig, atlas_grid, lesion_free_slices, to_grid
from maediff.preparation.intensities import (
    NormaliseConfig,
    deciles_of,
    learn_landmarks,
    standardise,
)
from maediff.preparation.onto_grid import prepare_scan
from maediff.preparation.picture import picture
from maediff.preparation.prepare import prepare
from maediff.preparation.quality import QualityConfig, check_voxels
from maediff.preparation.registration import (
    RegistrationConfig,
    align_rigidly,
    align_to_atlas,
    load_atlas,
)
from maediff.preparation.steps import run_steps
from maediff.report import write_report
from maediff.scans.inputs.find import find_scans
from maediff.scans.nifti import read_nifti
from maediff.scans.read import read_volume
from maediff.scans.volume import Volume

UNSEEN = replace(UNREGISTERED, qc=QualityConfig(align="never"))


def volume_of(data, affine, name="scan.nii.gz"):
    return Volume(np.asarray(data, dtype=np.float32), affine, Path(name), data.shape, affine)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def qc(out):
    with (out / "qc.csv").open() as handle:
        return {row["name"]: row for row in csv.DictReader(handle)}


def test_only_a_raw_scan_has_its_brain_extracted():
    tools, calls = fake_extraction(true_brain)
    head, brain, affine = made_head()
    stepped = run_steps(volume_of(head, affine, "raw"), None, UNSEEN, modality="T1w", tools=tools)
    assert (
        stepped.brain_from == "deepbet" and stepped.extracted and dice(stepped.brain, brain) > 0.98
    )
    stripped = volume_of(np.where(brain, head, 0), affine, "stripped")
    assert (
        run_steps(stripped, None, modality="T1w", tools=tools).brain_from
        == "from the zero background"
    )
    given = run_steps(volume_of(head, affine, "given"), brain, modality="T1w", tools=tools)
    assert given.brain_from == "given" and given.record == {}
    assert calls == ["raw"]


def test_a_stripped_scan_goes_on_exactly_as_before():
    data, _, affine = made_brain()
    volume = volume_of(data, affine)
    before = prepare_scan(volume)
    prepared = prepare(volume, PreparationConfig(modality="T1w"))
    stepped, after = prepared.on_scan, prepared.on_grid
    np.testing.assert_array_equal(after.image, before.image)
    np.testing.assert_array_equal(after.grid.affine, before.grid.affine)
    assert after.record == before.record and stepped.volume is volume


@pytest.mark.parametrize("wrong", ["nothing", "asserts"])
def test_an_extraction_that_finds_no_brain_fails_that_scan_only(tmp_path, caplog, wrong):
    def draw(volume):
        if volume.source.name == "b.nii.gz":
            if wrong == "nothing":
                return np.zeros(volume.data.shape, dtype=bool)
            raise InputError("b.nii.gz: brain extraction (deepbet) failed, it found no brain")
        return true_brain(volume)

    tools, _ = fake_extraction(draw)
    for seed, name in enumerate("abc"):
        head, _, affine = made_head(seed=seed)
        save(tmp_path / "in" / f"{name}.nii.gz", head, affine)
    out = tmp_path / "out"
    with caplog.at_level(logging.ERROR):
        assert (
            preprocess(
                [tmp_path / "in"],
                out,
                modality="T1w",
                preparation=UNSEEN,
                tools=tools,
                run=QUIET,
            )
            == 1
        )
    assert "b failed" in caplog.text and "found no brain" in qc(out)["b"]["flags"]
    assert [row.name for row in Cohort.open(out).rows] == ["a", "c"]
    assert qc(out)["a"]["brain_mask"] == "deepbet"
    about = json.loads((out / "cohort.json").read_text())
    assert (
        about["brain"]["tool"] == "auto"
        and not about["registration"]["enabled"]
        and not about["bias"]["enabled"]
    )
    assert json.loads((out / "a" / "image.json").read_text())["settings"]["qc"]["align"] == "never"
    assert (out / "a" / "qc.png").is_file()
    page = write_report(out).read_text()
    assert (
        "2 of 3 scans went through" in page
        and "data:image/png" in page
        and "found no brain" in page
    )


def test_a_label_map_is_no_scan():
    data, brain, affine = made_brain((30, 36, 30), (6.0, 6.0, 5.0))
    with pytest.raises(
        InputError,
        match=r"only 3 different values in the brain, so it looks like a mask or a label map",
    ):
        run_steps(
            volume_of(np.where(brain, np.round(3 * data / data.max()) + 1, 0), affine),
            None,
            modality="T1w",
        )


def test_no_tool_is_a_clear_word():
    head, _, affine = made_head()
    with pytest.raises(
        InputError, match=r"scan\.nii\.gz: raw scan with skull, and brain\.tool=none"
    ):
        run_steps(
            volume_of(head, affine),
            None,
            PreparationConfig(brain=BrainConfig(tool="none")),
            modality="T1w",
        )
    with pytest.raises(InputError, match=r"synthstrip is not installed"):
        extract_brain(volume_of(head, affine), BrainConfig(tool="synthstrip"))
    with pytest.raises(InputError, match="brain: tool: Input should be"):
        PreparationConfig.from_settings({"brain": {"tool": "unheard"}})
    with pytest.raises(InputError, match=r"1\.5: a probability"):
        PreparationConfig.from_settings({"brain": {"threshold": 1.5}})


@pytest.mark.parametrize("tool", ["synthstrip", "hd-bet"])
def test_other_tools_are_run_as_programs(tmp_path, monkeypatch, tool):
    head, brain, affine = made_head()
    save(tmp_path / "answer.nii.gz", brain, affine)
    name = {"synthstrip": "mri_synthstrip", "hd-bet": "hd-bet"}[tool]
    target = {"synthstrip": '"$4"', "hd-bet": '"${4%.nii.gz}_bet.nii.gz"'}[tool]
    program = tmp_path / "bin" / name
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ncp "{tmp_path}/answer.nii.gz" {target}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    found, by = extract_brain(volume_of(head, affine), BrainConfig(tool=tool))
    assert by == tool
    np.testing.assert_array_equal(found, brain)
    program.write_text("#!/bin/sh\necho no licence >&2\nexit 3\n")
    with pytest.raises(
        InputError, match=rf"scan\.nii\.gz: brain extraction \({tool}\) failed: no licence"
    ):
        extract_brain(volume_of(head, affine), BrainConfig(tool=tool))


def test_the_brain_of_the_t1_is_moved_rigidly():
    t1, brain, affine = made_head((70, 80, 60), (2.0, 2.0, 2.0))
    moved = oblique(np.eye(4), (4.0, -3.0, 5.0))
    moved[:3, 3] = [4, -6, 3]
    _, true, other = made_brain((80, 90, 28), (1.8, 1.8, 5.0))
    source = np.linalg.inv(affine) @ np.linalg.inv(moved) @ other
    t2 = ndimage.affine_transform(
        255 - t1, source[:3, :3], source[:3, 3], output_shape=true.shape, order=1, cval=250
    )
    expected = ndimage.affine_transform(
        brain.astype(float), source[:3, :3], source[:3, 3], output_shape=true.shape, order=1
    )
    found = brain_from_t1(volume_of(t2, other), volume_of(t1, affine), brain)
    assert dice(found, expected > 0.5) > 0.97
    assert dice(found, true) < 0.95  # without moving it


def test_a_t2_takes_the_mask_of_its_t1_and_says_so(tmp_path):
    tools, calls = fake_extraction(true_brain)
    head, brain, affine = made_head((60, 72, 30), (2.0, 2.0, 3.5))
    folder = tmp_path / "sub-1" / "anat"
    t1 = save(folder / "sub-1_T1w.nii.gz", head, affine)
    t2 = save(folder / "sub-1_T2w.nii.gz", head[:, :, ::2], affine @ np.diag([1, 1, 2.0, 1]))
    (ref,) = find_scans([t2])
    assert ref.t1 == t1
    stepped = run_steps(read_nifti(t2), None, UNSEEN, modality="T2w", t1=ref.t1, tools=tools)
    assert stepped.brain_from == "deepbet on sub-1_T1w.nii.gz, moved rigidly"
    assert dice(stepped.brain, brain[:, :, ::2]) > 0.95
    alone = PreparationConfig(brain=BrainConfig(from_t1=False), qc=UNSEEN.qc)
    assert (
        run_steps(read_nifti(t2), None, alone, modality="T2w", t1=ref.t1, tools=tools).brain_from
        == "deepbet"
    )
    t1.write_bytes(b"")
    damaged = run_steps(read_nifti(t2), None, UNSEEN, modality="T2w", t1=ref.t1, tools=tools)
    assert damaged.brain_from == "deepbet" and "0 bytes" in damaged.notes[0]
    assert calls == ["sub-1_T1w.nii.gz", "sub-1_T2w.nii.gz", "sub-1_T2w.nii.gz"]


def test_a_t2_in_dicom_takes_the_brain_of_its_studys_plain_t1(tmp_path):
    tools, _ = fake_extraction(true_brain)
    head, brain, affine = made_head((60, 72, 30), (2.0, 2.0, 3.5))
    uid = generate_uid()
    thick = affine @ np.diag([1, 1, 2.0, 1])
    for number, (text, data, grid) in enumerate(
        [
            ("t1_tse", head[:, :, ::2], thick),
            ("t1_mprage", head, affine),
            ("t1_mprage gd", head, affine),
            ("t2_tse", head[:, :, ::2], thick),
        ]
    ):
        write_series(
            tmp_path / "in" / "p" / text,
            np.round(data),
            grid,
            StudyInstanceUID=uid,
            SeriesDescription=text,
            SeriesNumber=number,
        )
    (ref,) = find_scans([tmp_path / "in"], "T2w")
    assert (ref.image.name, ref.t1 and ref.t1.name) == (
        "t2_tse",
        "t1_mprage",
    ) and ref.t1_series not in repr(ref)
    assert find_scans([tmp_path / "in"], "T1w", series="0")[0].t1 is None
    out = tmp_path / "out"
    assert (
        preprocess(
            [tmp_path / "in"], out, modality="T2w", preparation=UNSEEN, tools=tools, run=QUIET
        )
        == 0
    )
    assert qc(out)["p"]["brain_mask"] == "deepbet on t1_mprage, moved rigidly"
    stepped = run_steps(
        read_volume(ref),
        None,
        UNSEEN,
        modality="T2w",
        t1=ref.t1,
        t1_series=ref.t1_series,
        tools=tools,
    )
    assert dice(stepped.brain, brain[:, :, ::2]) > 0.95
    assert ref.t1_series not in (out / "p" / "image.json").read_text()
    (tmp_path / "list.csv").write_text("subject,image\nx,in/p\n")
    assert find_scans([tmp_path / "list.csv"], "T2w")[0].t1 == ref.t1


def test_scans_go_to_mni152_unless_told_otherwise(tmp_path):
    atlas = load_atlas()
    cut = np.where(atlas.brain, np.maximum(atlas.t1, 0.02), 0)[::3, ::3, ::3].astype(np.float32)
    save(tmp_path / "in" / "a.nii.gz", cut, atlas.affine @ np.diag([3.0, 3.0, 3.0, 1.0]))
    preprocess([tmp_path / "in"], tmp_path / "on", modality="T1w", run=QUIET)
    preprocess(
        [tmp_path / "in"], tmp_path / "off", modality="T1w", preparation=UNREGISTERED, run=QUIET
    )
    for name, enabled in (("on", True), ("off", False)):
        meta = json.loads((tmp_path / name / "cohort.json").read_text())
        assert (
            meta["registration"] == {"enabled": enabled}
            and PreparationConfig.from_record(meta).registration.enabled is enabled
        )
        record = json.loads((tmp_path / name / "a" / "image.json").read_text())["record"]
        assert ("to_atlas" in record) is enabled
    del meta["registration"], meta["bias"]  # a model from before they were recorded
    assert not PreparationConfig.from_record(meta).registered


def test_n4_finds_a_field_that_was_put_in():
    data, brain, affine = made_brain((60, 72, 50))
    x, y, _ = np.indices(data.shape) / 60 - 0.5
    put_in = np.exp(0.4 * x - 0.3 * y * y)
    flat = np.where(
        brain, 100 + 0.1 * data, 0
    )  # tissue with little contrast, so that the field is what varies
    corrected, field = correct_bias(
        volume_of(flat * put_in, affine), brain, BiasConfig(iterations=(30, 30))
    )
    inside = ndimage.binary_erosion(brain, iterations=3)
    assert np.corrcoef(np.log(field[inside]), np.log(put_in[inside]))[0, 1] > 0.97
    assert np.std(corrected.data[inside]) < 0.5 * np.std((flat * put_in)[inside])
    np.testing.assert_allclose(corrected.data * field, flat * put_in, rtol=1e-4)


def _turned_round_trip(shift_mm=(0, 0, 0), volumes_ml=(1.1, 1.5, 3.0, 20.0)):
    """Dice of balls at 1 mm, taken to a grid in an atlas's space and back.

    Args:
        shift_mm: in the scan's frame, put between the way there and the way back; half a voxel of the model's grid
            is 1 mm (its voxels are 2 mm), which is a whole voxel of the scan's.
    """
    data, _, affine = made_brain((136, 136, 100), (1.0, 1.0, 1.0))
    volume = volume_of(data, affine)
    grid = atlas_grid(oblique(np.diag([1.1, 1.05, 1.15, 1.0])), GridConfig())
    shift = np.eye(4)
    shift[:3, 3] = shift_mm
    wrong = type(grid)(grid.shape, shift @ grid.affine, atlas_affine=grid.atlas_affine)
    scores = []
    for number, volume_ml in enumerate(volumes_ml):
        lesion = ball(
            data.shape,
            affine,
            [10.0 + 0.3 * number, -13.7 + 0.45 * number, 5.2 * number - 8],
            volume_ml,
        )
        back = from_grid(to_grid(lesion, affine, grid, "majority"), wrong, volume, "nearest")
        scores.append(dice(lesion, back))
    return scores


def test_lesions_come_back_from_the_atlas_with_dice_of_90_percent_and_not_when_half_a_voxel_of_the_grid_is_off():
    assert min(_turned_round_trip()) >= 0.90
    half = 1.0  # half a voxel of the model's grid
    for shift in ([half, half, half], [half, 0, 0], [0, half, 0], [0, 0, half]):
        assert _turned_round_trip(shift, [1.1])[0] < 0.90, shift


def test_lesion_free_slices_of_a_turned_grid_do_not_see_the_lesion():
    data, brain, affine = made_brain((68, 68, 50), (2.0, 2.0, 2.0))
    grid = atlas_grid(oblique(np.diag([1.1, 1.05, 1.15, 1.0])), GridConfig())
    lesion = np.zeros(brain.shape, dtype=bool)
    lesion[30, 34, 20:22] = True
    changed = data + 1000 * ndimage.binary_dilation(
        lesion, np.ones((1, 1, 3))
    )  # with a margin of one slice
    free = lesion_free_slices(lesion, affine, grid, 1)
    same = np.isclose(
        to_grid(data, affine, grid, "linear"), to_grid(changed, affine, grid, "linear")
    ).all(axis=(0, 1))
    assert free.any() and not (free & ~same).any()
    assert (same & ~free).sum() <= 8


def test_histogram_standardisation_by_hand_and_back():
    landmarks = tuple(value**2 for value in np.linspace(0.1, 0.9, 9))
    config = NormaliseConfig(0, 100, landmarks)
    data = np.linspace(0, 1, 1001, dtype=np.float32).reshape(-1, 1, 1)
    deciles = deciles_of(data, np.ones(data.shape, dtype=bool))
    np.testing.assert_allclose(deciles, np.linspace(0.1, 0.9, 9), atol=1e-6)
    moved = standardise(data, deciles, config)
    np.testing.assert_allclose(moved[[0, 100, 500, 1000], 0, 0], [0, 0.01, 0.25, 1], atol=1e-6)
    np.testing.assert_allclose(
        moved[150, 0, 0], (0.01 + 0.04) / 2, atol=1e-6
    )  # a straight line in between
    np.testing.assert_allclose(standardise(moved, deciles, config, back=True), data, atol=1e-6)
    assert learn_landmarks([[0.1] * 9, [0.3] * 9]) == pytest.approx([0.2] * 9)
    for wrong in (
        (0.5,),
        (0.1, 0.3, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0),
    ):
        with pytest.raises(ValueError, match="nine numbers that rise"):
            NormaliseConfig(1, 99, wrong)


def test_standardised_scans_share_their_deciles_whatever_the_contrast():
    data, brain, affine = made_brain()
    config = NormaliseConfig(landmarks=(0.2, 0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8))
    prepared = [
        prepare_scan(volume_of(d, affine), brain, None, None, config) for d in (data, data**1.7)
    ]
    for one in prepared:
        np.testing.assert_allclose(deciles_of(one.image, one.brain), config.landmarks, atol=0.01)
        assert not one.image[~one.brain].any()
    plain = [prepare_scan(volume_of(d, affine), brain) for d in (data, data**1.7)]
    apart = [np.abs(a.image - b.image).mean() for a, b in (prepared, plain)]
    assert apart[0] < 0.3 * apart[1]


def test_empty_voxels_are_flagged_and_the_picture_shows_the_outline():
    data, brain, affine = made_brain()
    holed = data.copy()
    holed[20:40, 20:50, 10:40] = 0
    record, flags = check_voxels(volume_of(holed, affine), brain, QualityConfig())
    assert record["empty_share"] > 0.05 and flags == ["many empty voxels in the brain"]
    assert check_voxels(volume_of(data, affine), brain, QualityConfig())[1] == []
    view = picture(volume_of(data, affine), brain)
    assert view.shape == (120, 600, 3)
    assert 200 < (view == (255, 140, 26)).all(axis=-1).sum() < 3000
    assert (
        not (picture(volume_of(data, affine), brain & False) == (255, 140, 26)).all(axis=-1).any()
    )


@pytest.mark.slow
def test_several_processes_give_the_same_cohort_and_one_that_dies_fails_its_scan_only(
    tmp_path, monkeypatch
):
    for seed in range(4):
        data, _, affine = made_brain((60, 72, 14), (2.0, 2.0, 6.0), seed=seed)
        save(tmp_path / "in" / f"p{seed}.nii.gz", data, affine)
    run = partial(preprocess, [tmp_path / "in"], modality="T1w", preparation=UNREGISTERED)
    two_processes = RunOptions(workers=2, quiet=True)
    assert run(tmp_path / "one", run=QUIET) == run(tmp_path / "two", run=two_processes) == 0
    for row, other in zip(
        Cohort.open(tmp_path / "one").rows, Cohort.open(tmp_path / "two").rows, strict=True
    ):
        np.testing.assert_array_equal(read_nifti(row.image).data, read_nifti(other.image).data)

    def dies(do, ref):
        if ref.name == "p1":
            os.kill(os.getpid(), 9)
        return do(ref)

    monkeypatch.setattr("maediff.scans.parallel._run_safely", dies)
    assert run(tmp_path / "three", run=two_processes) == 1
    assert "its process was killed" in qc(tmp_path / "three")["p1"]["flags"]
    assert [row.name for row in Cohort.open(tmp_path / "three").rows] == ["p0", "p2", "p3"]


def test_heads_far_apart_are_brought_together_and_ones_that_cannot_be_are_refused(monkeypatch):
    data, brain, affine = made_head((36, 42, 30), (4.0, 4.0, 4.0))
    away = affine.copy()
    away[:3, 3] += [500, -400, 300]
    fixed, moving = volume_of(data, affine), volume_of(data, away, "t1.nii.gz")
    np.testing.assert_allclose(align_rigidly(fixed, moving)[:3, 3], [500, -400, 300], atol=1)
    assert (brain_from_t1(fixed, moving, brain) ^ brain).mean() < 0.01
    monkeypatch.setattr(
        "maediff.preparation.registration._refine", lambda *_, **__: (-np.inf, np.eye(4))
    )
    with pytest.raises(
        InputError, match=r"scan\.nii\.gz: rigid registration with t1\.nii\.gz failed"
    ):
        align_rigidly(fixed, moving)


@pytest.mark.parametrize("shift_mm", [(10, 0, 0), (0, -15, 0), (0, 0, 15)])
def test_a_brain_moved_to_the_wrong_place_is_not_taken(tmp_path, monkeypatch, shift_mm):
    tools, _ = fake_extraction(true_brain)
    head, brain, affine = made_head((44, 52, 30), (3.0, 3.0, 4.0))
    t1 = save(tmp_path / "s_T1w.nii.gz", head, affine)
    t2 = read_nifti(save(tmp_path / "s_T2w.nii.gz", 255 - head, affine))
    assert run_steps(t2, brain, UNSEEN, modality="T2w", t1=t1, tools=tools).flags == []
    assert brain_from_t1(t2, read_nifti(t1), brain).any()
    wrong = np.eye(4)
    wrong[:3, 3] = shift_mm
    monkeypatch.setattr("maediff.preparation.brain_extraction.align_rigidly", lambda *_: wrong)
    with pytest.raises(InputError, match="fit better 10 mm away"):
        brain_from_t1(t2, read_nifti(t1), brain)
    tools, _ = fake_extraction(lambda _: brain)
    stepped = run_steps(t2, None, UNSEEN, modality="T2w", t1=t1, tools=tools)
    assert stepped.brain_from == "deepbet" and "its T1 could not be used" in stepped.flags


def test_a_mask_too_small_for_a_brain_is_a_failure_unless_the_scan_is_small(monkeypatch):
    head, brain, affine = made_head((60, 72, 30), (2.0, 2.0, 4.0))
    monkeypatch.setitem(
        EXTRACTORS,
        "deepbet",
        lambda volume, _: ball(volume.data.shape, affine, (0, 0, 0), 50),
    )
    with pytest.raises(
        InputError, match=r"scan\.nii\.gz: brain extraction \(deepbet\) failed, it found 50 ml"
    ):
        extract_brain(volume_of(head, affine))
    slab = slice(12, 18)
    monkeypatch.setitem(EXTRACTORS, "deepbet", lambda *_: brain[:, :, slab])
    assert extract_brain(volume_of(head[:, :, slab], affine))[0].any()


def test_one_slice_is_neither_registered_nor_corrected_and_that_is_said_in_one_line():
    data, _, affine = made_brain((60, 72, 50))
    one = volume_of(data[:, :, 25:26], affine)
    on = PreparationConfig(registration=RegistrationConfig(enabled=True))
    with pytest.raises(
        InputError, match=r"scan\.nii\.gz: .* too thin .*registration\.enabled=false"
    ) as said:
        run_steps(one, None, on, modality="T1w")
    looked = run_steps(
        one, None, PreparationConfig(qc=QualityConfig(align="always")), modality="T1w"
    )
    assert looked.flags == ["could not be aligned to the atlas"] and looked.to_atlas is None
    with pytest.raises(InputError, match=r"scan\.nii\.gz: N4 .*bias\.enabled=false") as also:
        run_steps(one, None, PreparationConfig(bias=BiasConfig(enabled=True)), modality="T1w")
    assert "\n" not in f"{said.value}{also.value}"


def test_an_affine_registration_of_which_no_start_ends_is_an_error(monkeypatch):
    data, brain, affine = made_brain()
    monkeypatch.setattr(
        "maediff.preparation.registration._refine", lambda *_, **__: (-np.inf, np.eye(4))
    )
    with pytest.raises(InputError, match=r"scan\.nii\.gz: registration to MNI152 failed"):
        align_to_atlas(volume_of(data, affine), brain)
