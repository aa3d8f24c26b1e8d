"""Brain extraction: choice of the tool, programs, checks of the mask, and the mask of the T1w."""

import os
import stat
import time

import numpy as np
import pytest
from scipy import ndimage

from helpers.brains import ball, dice, made_brain, made_volume, oblique, save
from helpers.heads import made_head
from maediff.core.errors import InputError
from maediff.core.processes.process import is_running
from maediff.preparation.brain_extraction import (
    EXTRACTORS,
    BrainConfig,
    brain_from_t1,
    check_extracted_brain,
    extract_brain,
)
from maediff.scans.nifti import read_nifti


def test_no_tool():
    head, _, affine = made_head()
    with pytest.raises(
        InputError, match=r"scan\.nii\.gz: raw scan with skull, and `brain\.tool=none`"
    ):
        extract_brain(made_volume(head, affine), BrainConfig(tool="none"))
    with pytest.raises(InputError, match=r"synthstrip is not installed"):
        extract_brain(made_volume(head, affine), BrainConfig(tool="synthstrip"))


@pytest.mark.parametrize("tool", ["synthstrip", "hd-bet"])
def test_the_mask_of_a_program_is_read(tmp_path, monkeypatch, tool):
    head, brain, affine = made_head()
    save(tmp_path / "answer.nii.gz", brain, affine)
    name = {"synthstrip": "mri_synthstrip", "hd-bet": "hd-bet"}[tool]
    target = {"synthstrip": '"$4"', "hd-bet": '"${4%.nii.gz}_bet.nii.gz"'}[tool]
    program = tmp_path / "bin" / name
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ncp "{tmp_path}/answer.nii.gz" {target}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    mask, used_tool = extract_brain(made_volume(head, affine), BrainConfig(tool=tool))
    assert used_tool == tool
    np.testing.assert_array_equal(mask, brain)
    program.write_text("#!/bin/sh\necho no licence >&2\nexit 3\n")
    with pytest.raises(
        InputError, match=rf"scan\.nii\.gz: brain extraction \({tool}\) failed: no licence"
    ):
        extract_brain(made_volume(head, affine), BrainConfig(tool=tool))
    program.write_text("#!/bin/sh\n")
    with pytest.raises(InputError, match=rf"brain extraction \({tool}\) wrote no mask"):
        extract_brain(made_volume(head, affine), BrainConfig(tool=tool))


@pytest.mark.parametrize("end", ["wait", "exit 0"])
def test_a_program_that_hangs_ends_with_its_children(tmp_path, monkeypatch, end):
    head, _, affine = made_head()
    program = tmp_path / "mri_synthstrip"
    program.write_text(f"#!/bin/sh\nsleep 60 &\necho $! > '{tmp_path}/child'\n{end}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("maediff.preparation.brain_extraction.TIMEOUT_S", 1)
    with pytest.raises(InputError, match=r"\(synthstrip\) failed: it took more than 1 s; run it"):
        extract_brain(made_volume(head, affine), BrainConfig(tool="synthstrip"))
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 30
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(child)


def test_mask_too_small(monkeypatch):
    pytest.importorskip("deepbet")
    head, brain, affine = made_head((60, 72, 30), (2.0, 2.0, 4.0))
    small = ball(head.shape, affine, (0, 0, 0), 50)
    monkeypatch.setitem(EXTRACTORS, "deepbet", lambda *_: small)
    with pytest.raises(
        InputError, match=r"scan\.nii\.gz: brain extraction \(deepbet\) failed, it found 50 ml"
    ):
        extract_brain(made_volume(head, affine))
    slab = slice(12, 18)
    monkeypatch.setitem(EXTRACTORS, "deepbet", lambda *_: brain[:, :, slab])
    assert extract_brain(made_volume(head[:, :, slab], affine))[0].any()


def test_empty_mask():
    head, brain, affine = made_head()
    with pytest.raises(
        InputError, match=r"scan\.nii\.gz: brain extraction \(x\) failed, it found no brain"
    ):
        check_extracted_brain(made_volume(head, affine), brain & False, "x")


def test_mask_of_t1():
    t1, brain, affine = made_head((70, 80, 60), (2.0, 2.0, 2.0))
    moved = oblique(np.eye(4), (4.0, -3.0, 5.0))
    moved[:3, 3] = [4, -6, 3]
    _, unmoved, other_affine = made_brain((80, 90, 28), (1.8, 1.8, 5.0))
    to_t1 = np.linalg.inv(affine) @ np.linalg.inv(moved) @ other_affine
    where = {"output_shape": unmoved.shape, "order": 1}
    t2 = ndimage.affine_transform(255 - t1, to_t1[:3, :3], to_t1[:3, 3], cval=250, **where)
    expected = ndimage.affine_transform(brain * 1.0, to_t1[:3, :3], to_t1[:3, 3], **where)
    result = brain_from_t1(made_volume(t2, other_affine), made_volume(t1, affine), brain)
    assert dice(result, expected > 0.5) > 0.97
    assert dice(result, unmoved) < 0.95


@pytest.mark.parametrize("shift_mm", [(10, 0, 0), (0, -15, 0), (0, 0, 15)])
def test_wrong_alignment_with_t1(tmp_path, monkeypatch, shift_mm):
    head, brain, affine = made_head((44, 52, 30), (3.0, 3.0, 4.0))
    t1 = read_nifti(save(tmp_path / "s_T1w.nii.gz", head, affine))
    t2 = read_nifti(save(tmp_path / "s_T2w.nii.gz", 255 - head, affine))
    assert brain_from_t1(t2, t1, brain).any()
    wrong = np.eye(4)
    wrong[:3, 3] = shift_mm
    monkeypatch.setattr("maediff.preparation.brain_extraction.align_rigidly", lambda *_: wrong)
    with pytest.raises(InputError, match="fit better 10 mm away"):
        brain_from_t1(t2, t1, brain)


def test_wrong_threshold():
    with pytest.raises(ValueError, match=r"1\.5: a probability"):
        BrainConfig(threshold=1.5)
