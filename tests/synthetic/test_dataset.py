"""Datasets of synthetic brains."""

import csv

import nibabel as nib
import numpy as np
import pytest

from maediff.core.errors import InputError
from maediff.synthetic.dataset import MIX, healthy_subject, lesioned_subject, make_phantom_dataset
from maediff.synthetic.lesion import LESION_KINDS


def test_each_kind_and_size_is_equally_frequent() -> None:
    kinds, sizes = zip(*MIX.lesions, strict=True)
    assert {kinds.count(kind) for kind in LESION_KINDS} == {len(kinds) // 4}
    assert sizes.count("large") == sizes.count("small")
    assert len(set(MIX.lesions)) == len(MIX.lesions) == 8
    assert MIX.n_val % 8 == MIX.n_test % 8 == 0


def test_subjects_have_seeds_of_their_own():
    healthy, lesioned = lesioned_subject("val", 1)
    assert (
        healthy.lesion is None and (lesioned.lesion_kind, lesioned.lesion_size) == MIX.lesions[1]
    )
    seeds = {healthy.seed, *(healthy_subject(split, 1).seed for split in ("train", "val", "test"))}
    assert len(seeds) == 4


def test_a_dataset_has_the_requested_subjects(tmp_path):
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
    rows = list(csv.DictReader(manifest.read_text("utf-8").splitlines()))
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
    again = lesioned_subject("val", 1, "T2w", seed=3)[1]  # independent of the other subjects
    np.testing.assert_array_equal(
        np.asarray(nib.load(manifest.parent / rows[3]["image"]).dataobj), again.image
    )
    with pytest.raises(InputError, match="not empty"):
        make_phantom_dataset(tmp_path / "a", n_train=1)
