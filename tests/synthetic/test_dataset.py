"""Phantoms: deterministic, brain-like, and lesions that lie where their masks say."""

import csv
import inspect
from dataclasses import replace
from functools import cache

import nibabel as nib
import numpy as np
import pytest

from maediff.core.errors import InputError
from maediff.core.types import Modality
from maediff.synthetic.brain import Phantom, PhantomConfig, healthy_brain
from maediff.synthetic.dataset import MIX, lesioned_subject, make_phantom_dataset
from maediff.synthetic.fields import smooth_field
from maediff.synthetic.lesion import LESION_KINDS, LESION_ML, LesionKind, LesionSize, add_lesion

CONTRASTS = ("T1w", "T2w", "FLAIR")
VOXEL_ML = 2 * 2 * 4 / 1000


@pytest.fixture(scope="module")
def brain() -> Phantom:
    return healthy_brain((5, 1))


def test_brain_fits_the_model_grid(brain: Phantom) -> None:
    assert brain.image.shape == brain.brain.shape == (80, 100, 40)
    assert brain.image.dtype == np.float32
    np.testing.assert_array_equal(np.abs(np.diag(brain.affine)[:3]), [2, 2, 4])
    assert 1000 < brain.brain.sum() * VOXEL_ML < 2000
    assert 30 <= brain.brain.any((0, 1)).sum() <= 40
    for axis in (0, 1):  # no brain is cut at the field of view's sides
        assert not brain.brain.take([0, -1], axis=axis).any()


def test_zero_outside_the_brain_and_positive_inside(brain: Phantom) -> None:
    assert (brain.image[~brain.brain] == 0).all()
    assert (brain.image[brain.brain] > 0).mean() == 1


def test_fractions_sum_to_one_in_the_brain(brain: Phantom) -> None:
    total = brain.fractions.sum(0)
    np.testing.assert_allclose(total[brain.depth_mm > 0], 1, atol=1e-5)
    assert (total[brain.depth_mm <= 0] == 0).all()
    csf, gm, wm = (float(f.sum() / total.sum()) for f in brain.fractions)
    assert 0.03 < csf < 0.25 and gm > 0.3 and wm > 0.25


@pytest.mark.parametrize(
    ("contrast", "order"), [("T1w", "csf gm wm"), ("T2w", "wm gm csf"), ("FLAIR", "csf wm gm")]
)
def test_tissues_are_ordered_as_in_the_contrast(contrast: Modality, order: str) -> None:
    b = healthy_brain((5, 2), PhantomConfig(contrast=contrast))
    thick = 0.5 * (b.fractions[:, :, :, 0::2] + b.fractions[:, :, :, 1::2])
    pure = {
        name: float(np.median(b.image[(f > 0.9) & b.brain]))
        for name, f in zip(("csf", "gm", "wm"), thick, strict=True)
    }
    values = [pure[name] for name in order.split()]
    assert values == sorted(values), pure


def test_same_seed_same_brain_other_seed_another(brain: Phantom) -> None:
    np.testing.assert_array_equal(healthy_brain((5, 1)).image, brain.image)
    other = healthy_brain((5, 2)).image
    assert np.abs(other - brain.image)[brain.brain].mean() > 0.05


def test_contrasts_of_a_seed_share_their_anatomy(brain: Phantom) -> None:
    flair = healthy_brain((5, 1), PhantomConfig(contrast="FLAIR"))
    np.testing.assert_array_equal(flair.fractions, brain.fractions)


def test_sulci_differ_between_subjects_even_without_a_warp() -> None:
    still = PhantomConfig(
        rotation_deg=0, scaling=0, coarse_warp_mm=0, fine_warp_mm=0, ventricle_mm=(0, 0)
    )
    a, b = (healthy_brain((5, i), still) for i in (1, 2))
    np.testing.assert_allclose(
        a.depth_mm, b.depth_mm, atol=6
    )  # one head shape, up to its random size
    cortex = (a.depth_mm > 6) & (a.depth_mm < 14) & (a.cerebrum > 0.9) & (b.depth_mm > 6)
    r = np.corrcoef(a.fractions[2][cortex], b.fractions[2][cortex])[0, 1]
    assert r < 0.5


def test_smooth_field_is_standardised_and_smooth() -> None:
    rng = np.random.default_rng(0)
    fields = np.stack([smooth_field(rng, (40, 40, 40), 16.0) for _ in range(12)])
    assert abs(fields.mean()) < 0.1
    assert abs(fields.std() - 1) < 0.1
    assert np.abs(np.diff(fields, axis=1)).mean() < 0.35


@cache
def cached_brain(contrast: Modality) -> Phantom:
    return healthy_brain((6, 0), PhantomConfig(contrast=contrast))


@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize("size", ["large", "small"])
@pytest.mark.parametrize("kind", LESION_KINDS)
def test_lesion_has_the_size_asked_for_and_changes_its_place_only(
    kind: LesionKind, size: LesionSize, contrast: Modality
) -> None:
    healthy = cached_brain(contrast)
    lesioned = add_lesion(healthy, kind, size, 11)
    assert lesioned.lesion is not None and lesioned.lesion.dtype == bool
    assert (lesioned.lesion_kind, lesioned.lesion_size) == (kind, size)
    low, high = LESION_ML[size]
    assert low <= lesioned.lesion.sum() * VOXEL_ML <= high
    assert not (lesioned.lesion & ~healthy.brain).any()
    change = np.abs(lesioned.image - healthy.image)
    assert change[lesioned.lesion].mean() > 10 * change[healthy.brain & ~lesioned.lesion].mean()


def test_bright_and_dark_lesions_leave_far_voxels_bit_equal() -> None:
    healthy = healthy_brain((6, 1))
    lesioned = add_lesion(healthy, "dark", "small", 3)
    x = np.argwhere(lesioned.lesion)
    far = np.ones(healthy.brain.shape, bool)
    low, high = np.maximum(x.min(0) - 6, 0), x.max(0) + 7
    far[low[0] : high[0], low[1] : high[1], low[2] : high[2]] = False
    np.testing.assert_array_equal(lesioned.image[far], healthy.image[far])


def test_kinds_do_what_their_names_say() -> None:
    healthy = healthy_brain((6, 2), PhantomConfig(contrast="FLAIR"))
    quiet = replace(healthy, noise=0.0, blur_mm=0.1)

    def mean_change(kind: LesionKind) -> float:
        lesioned = add_lesion(quiet, kind, "large", 4)
        thick = (
            0.5 * (lesioned.clean - quiet.clean)[:, :, 0::2]
            + 0.5 * (lesioned.clean - quiet.clean)[:, :, 1::2]
        )
        return float(thick[lesioned.lesion].mean())

    changes = {kind: mean_change(kind) for kind in LESION_KINDS}
    assert changes["bright"] > 0.08
    assert changes["dark"] < -0.15
    assert abs(changes["texture"]) < 0.05
    assert abs(changes["mass_effect"]) < 0.06


def test_unknown_lesion_is_refused() -> None:
    healthy = healthy_brain((6, 2))
    with pytest.raises(ValueError, match=r"'purple'.*mass_effect"):
        inspect.unwrap(add_lesion)(
            healthy, "purple", "large", 0
        )  # past the tests' own type checker


def test_unknown_contrast_is_refused() -> None:
    with pytest.raises(ValueError, match="contrast"):
        PhantomConfig(contrast="PD")  # type: ignore[arg-type]


def test_mix_is_a_quarter_each_kind_and_half_each_size() -> None:
    kinds, sizes = zip(*MIX.lesions, strict=True)
    assert {kinds.count(kind) for kind in LESION_KINDS} == {len(kinds) // 4}
    assert sizes.count("large") == sizes.count("small")
    assert len(set(MIX.lesions)) == len(MIX.lesions) == 8
    assert MIX.n_val % 8 == MIX.n_test % 8 == 0


def test_dataset_on_disk(tmp_path, brain: Phantom) -> None:
    manifest = make_phantom_dataset(
        tmp_path / "a",
        contrast="T2w",
        n_train=1,
        n_val=2,
        n_test=1,
        n_healthy_val=1,
        n_healthy_test=0,
        seed=3,
    )
    rows = list(csv.DictReader(manifest.read_text().splitlines()))
    assert [(r["split"], r["healthy"], r["lesion_kind"], r["lesion_size"]) for r in rows] == [
        ("train", "1", "", ""),
        ("val", "1", "", ""),
        ("val", "0", "bright", "large"),
        ("val", "0", "dark", "small"),
        ("test", "0", "bright", "large"),
    ]
    assert len({r["subject"] for r in rows}) == len(rows)
    for row in rows:
        image = nib.load(manifest.parent / row["image"])
        assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
        assert (row["lesion_mask"] != "") == (row["healthy"] == "0")
        for column in ("brain_mask", "lesion_mask"):
            if row[column]:
                mask = nib.load(manifest.parent / row[column])
                np.testing.assert_array_equal(mask.affine, image.affine)
                assert set(np.unique(mask.dataobj)) == {0, 1}
        assert not any(word in row["image"].lower() for word in ("mask", "seg", "consensus", "gt"))
    again = lesioned_subject("val", 1, "T2w", seed=3)[1]  # the same alone as among the others
    np.testing.assert_array_equal(
        np.asarray(nib.load(manifest.parent / rows[3]["image"]).dataobj), again.image
    )
    with pytest.raises(InputError, match="not empty"):
        make_phantom_dataset(tmp_path / "a", n_train=1)
