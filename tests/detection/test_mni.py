"""Images and coordinates in MNI152."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

import maediff
from helpers.brains import ball, made_volume, oblique, save
from helpers.heads import atlas_brain
from helpers.options import REGISTERED
from maediff.anomaly.regions import find_regions
from maediff.core.errors import InputError
from maediff.detection.detector import load
from maediff.detection.locations import locate, locate_region
from maediff.detection.result import IMAGES
from maediff.detection.sidecars import MNI_IMAGES
from maediff.detection.to_scan import load_mni_template
from maediff.preparation.atlas.template import load_atlas
from maediff.preparation.steps import run_steps

PLACE = oblique(np.diag([1.06, 0.97, 1.03, 1.0]), (9.0, -6.0, 5.0))
PLACE[:3, 3] = [12, -25, 10]
LESIONS_MM = [(-30.0, 20.0, 30.0), (34.0, -60.0, 20.0), (25.0, -14.0, 45.0), (-40.0, -30.0, -18.0)]


def find_centre_mm(mask, affine):
    return affine[:3, :3] @ np.argwhere(mask).mean(axis=0) + affine[:3, 3]


@pytest.fixture
def detection(run, scan):
    """A detection whose position in MNI152 is known: PLACE maps MNI152 to the scan."""
    found = load(run, device="cpu").detect(scan[0], threshold=0.2)
    on_scan = replace(found.prepared.on_scan, to_atlas=np.linalg.inv(PLACE))
    return replace(found, prepared=replace(found.prepared, on_scan=on_scan))


def test_images_are_at_their_place(detection):
    images = detection.images_in_mni()
    assert tuple(images) == MNI_IMAGES
    atlas = load_atlas()
    assert {image.shape for image in images.values()} == {atlas.t1.shape}
    expected = np.linalg.inv(PLACE) @ [
        *find_centre_mm(detection.anomaly_mask, detection.affine),
        1.0,
    ]
    mask = images["anomaly_mask_mni"]
    assert np.linalg.norm(find_centre_mm(mask, atlas.affine) - expected[:3]) < 1
    scaling = abs(np.linalg.det(PLACE))
    assert mask.sum() / 1000 * scaling == pytest.approx(detection.volume_ml, rel=0.05)
    assert images["anomaly_map_mni"].max() <= detection.on_model_grid.anomaly_map.max() + 1e-6
    brain_mm = np.linalg.inv(PLACE) @ [
        *find_centre_mm(detection.brain_mask, detection.affine),
        1.0,
    ]
    inside = images["healthy_reference_mni"] > 20
    assert np.linalg.norm(find_centre_mm(inside, atlas.affine) - brain_mm[:3]) < 3


def test_images_in_mni_have_the_grid_of_the_template(detection, tmp_path):
    folder = detection.save(tmp_path / "patient", mni=True)
    atlas = load_atlas()
    for kind in MNI_IMAGES:
        image = nib.load(folder / f"{kind}.nii.gz")
        assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (4, 4)
        assert image.header.get_xyzt_units()[0] == "mm"
        np.testing.assert_array_equal(image.affine, atlas.affine)
        assert image.shape == atlas.t1.shape
    written = nib.load(folder / "anomaly_mask_mni.nii.gz")
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(
        np.asarray(written.dataobj) > 0, detection.images_in_mni()["anomaly_mask_mni"]
    )
    np.testing.assert_array_equal(load_mni_template().data, atlas.t1)
    without = detection.save(tmp_path / "without")
    assert {path.name for path in without.glob("*.nii.gz")} == {
        f"{kind}.nii.gz" for kind in IMAGES
    }


def test_scan_that_cannot_be_registered(run, scan, tmp_path, monkeypatch):
    def fail(volume, brain):
        raise InputError(f"{volume.source}: the brain is too thin; make another cohort")

    monkeypatch.setattr("maediff.detection.result.align_to_atlas", fail)
    detection = load(run, device="cpu").detect(scan[0], threshold=0.2)
    with pytest.raises(InputError, match=r"the brain is too thin; leave out `mni`$"):
        detection.save(tmp_path / "patient", mni=True)
    assert not (tmp_path / "patient").exists()


@pytest.mark.slow
def test_coordinates_of_lesions_in_a_moved_head():
    """Registration finds the MNI152 coordinates of lesions at known places, within 3 mm."""
    data, brain, affine = atlas_brain(step=2, place=PLACE)
    inside = np.zeros(data.shape, dtype=bool)
    for centre in LESIONS_MM:
        inside |= ball(data.shape, affine, (PLACE @ [*centre, 1.0])[:3], 3.0)
    volume = made_volume(np.where(inside & brain, 60, data), affine)
    to_mni = run_steps(volume, brain, REGISTERED.for_modality("T1w")).to_atlas
    regions = find_regions(np.ones(data.shape), inside, affine)
    located = [locate_region(region, to_mni) for region in regions]
    assert len(located) == len(LESIONS_MM)
    for centre in LESIONS_MM:
        nearest = min(
            located, key=lambda region: np.linalg.norm(np.subtract(region.mni_mm, centre))
        )
        assert np.linalg.norm(np.subtract(nearest.mni_mm, centre)) < 3
        assert nearest.side == locate(centre).side


@pytest.mark.slow
def test_shipped_model_on_a_moved_head(tmp_path):
    """The mask of a dark lesion is at its place in MNI152, and so is its region."""
    data, brain, affine = atlas_brain(step=2, place=PLACE)
    centre = (-28.0, 20.0, 30.0)
    lesion = ball(data.shape, affine, (PLACE @ [*centre, 1.0])[:3], 20.0) & brain
    path = save(tmp_path / "head_T1w.nii.gz", np.where(lesion, 75, data), affine, "LPS")
    detection = maediff.load("t1", device="cpu").detect(path)
    region = detection.regions[0]
    assert np.linalg.norm(np.subtract(region.mni_mm, centre)) < 3
    assert region.location.startswith("left frontal lobe")
    folder = detection.save(tmp_path / "out", mni=True)
    mask = nib.load(folder / "anomaly_mask_mni.nii.gz")
    x, y, z = np.round(np.linalg.inv(mask.affine) @ [*centre, 1.0])[:3].astype(int)
    assert np.asarray(mask.dataobj)[x, y, z] == 1
