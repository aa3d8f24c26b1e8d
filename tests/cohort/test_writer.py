"""Files of a cohort."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from helpers.brains import made_brain, save
from maediff.cohort.cohort import Cohort
from maediff.cohort.writer import write_cohort, write_subject
from maediff.preparation.onto_grid import prepare_scan
from maediff.scans.nifti import read_nifti
from maediff.scans.reference import ScanRef


def test_written_cohort_is_read_back(tmp_path):
    data, brain, affine = made_brain((60, 72, 14), (2.0, 2.0, 6.0))
    image = save(tmp_path / "a.nii.gz", data, affine)
    out = tmp_path / "cohort"
    ref = ScanRef(
        subject="a", session="ses-1", image=image, dataset="d", healthy=True, extra={"age": "30"}
    )
    prepared = prepare_scan(read_nifti(image), brain)
    write_subject(out, ref, prepared, {"format": 2})
    assert json.loads((out / "a_ses-1" / "image.json").read_text("utf-8"))["settings"] == {
        "format": 2
    }
    meta = {"modality": "T1w", "grid": {}, "normalise": {}}
    write_cohort(out, [ref], meta)
    cohort = Cohort.open(out)
    counts = {"train": 0, "val": 1, "test": 0}
    voxels = cohort.meta.pop("voxels")
    assert cohort.meta == {"format": 2, **meta, "n_scans": 1, "n_subjects": counts}
    write_cohort(out, [ref], meta)
    assert Cohort.open(out).hash == cohort.hash
    write_subject(out, ref, replace(prepared, image=0.5 * prepared.image), {"format": 2})
    write_cohort(out, [ref], meta)
    assert Cohort.open(out).meta["voxels"] != voxels and Cohort.open(out).hash != cohort.hash
    write_subject(out, ref, prepared, {"format": 2})
    (row,) = cohort.rows
    assert (row.subject, row.session, row.dataset, row.split) == ("a", "ses-1", "d", "val")
    assert row.healthy and row.lesion_mask is None and row.source == str(image)
    scan = cohort.load(row)
    assert scan.extra == {"age": "30"} and scan.lesion_free.all()
    # slices are (z, y, x) with the rows from front to back
    volume = np.asarray(nib.load(row.image).dataobj)
    assert scan.images.max() == pytest.approx(volume.max(), abs=1e-6)
    np.testing.assert_allclose(volume, prepared.image, atol=2e-5)
    np.testing.assert_allclose(scan.affine, prepared.grid.own_affine)
    np.testing.assert_allclose(scan.affine_to_scan, prepared.grid.affine)
    assert scan.voxel_ml == pytest.approx(abs(np.linalg.det(prepared.grid.affine[:3, :3])) / 1000)
    assert int(nib.load(row.image).header["sform_code"]) == 1
