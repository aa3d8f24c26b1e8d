"""Registration: known positions, repeatable results, and failures."""

import numpy as np
import pytest

from helpers.brains import made_brain, made_volume, oblique
from helpers.heads import atlas_brain, atlas_head, made_head
from helpers.options import REGISTERED
from maediff.core.errors import InputError
from maediff.preparation import registration
from maediff.preparation.brain_extraction import brain_from_t1
from maediff.preparation.registration import align_rigidly, align_to_atlas, is_local_optimum
from maediff.preparation.steps import run_steps


@pytest.mark.slow
def test_known_position_in_atlas():
    place = oblique(np.diag([1.1, 1.05, 1.08, 1.0]), (12.0, -6.0, 5.0))
    place[:3, 3] = [20, -35, 60]
    data, brain, affine = atlas_head(place=place)
    stepped = run_steps(made_volume(data, affine), brain, REGISTERED.for_modality("T1w"))
    assert stepped.flags == [] and stepped.record["atlas_overlap"] > 0.97
    corners = np.array(np.meshgrid([-60, 60], [-90, 60], [-50, 70], [1.0])).reshape(4, -1)
    error_mm = np.linalg.norm((stepped.to_atlas @ place @ corners - corners)[:3], axis=0)
    assert error_mm.max() < 4


@pytest.mark.slow
def test_same_matrix_each_time():
    data, brain, affine = atlas_brain(place=oblique(np.eye(4)))
    volume = made_volume(data, affine)
    alignments = [align_to_atlas(volume, brain) for _ in range(3)]
    for alignment in alignments[1:]:
        np.testing.assert_array_equal(alignment.to_atlas, alignments[0].to_atlas)
        assert alignment.turned == alignments[0].turned


def test_heads_far_apart():
    data, brain, affine = made_head((36, 42, 30), (4.0, 4.0, 4.0))
    away = affine.copy()
    away[:3, 3] += [500, -400, 300]
    fixed, moving = made_volume(data, affine), made_volume(data, away, "t1.nii.gz")
    matrix = align_rigidly(fixed, moving)
    np.testing.assert_allclose(matrix[:3, 3], [500, -400, 300], atol=1)
    np.testing.assert_array_equal(align_rigidly(fixed, moving), matrix)
    assert (brain_from_t1(fixed, moving, brain) ^ brain).mean() < 0.01
    assert is_local_optimum(fixed, moving, matrix)
    matrix[0, 3] += 10
    assert not is_local_optimum(fixed, moving, matrix)


def test_rigid_registration_fails(monkeypatch):
    data, _, affine = made_head((36, 42, 30), (4.0, 4.0, 4.0))
    fixed, moving = made_volume(data, affine), made_volume(data, affine, "t1.nii.gz")
    monkeypatch.setattr(registration, "_refine", lambda *_, **__: (-np.inf, np.eye(4)))
    with pytest.raises(
        InputError, match=r"scan\.nii\.gz: rigid registration with t1\.nii\.gz failed"
    ):
        align_rigidly(fixed, moving)


def test_affine_registration_fails(monkeypatch):
    data, brain, affine = made_brain()
    monkeypatch.setattr(registration, "_refine", lambda *_, **__: (-np.inf, np.eye(4)))
    with pytest.raises(InputError, match=r"scan\.nii\.gz: registration to MNI152 failed"):
        align_to_atlas(made_volume(data, affine), brain)


def test_empty_brain():
    data, brain, affine = made_brain()
    with pytest.raises(ValueError, match="empty brain"):
        align_to_atlas(made_volume(data, affine), brain & False)
