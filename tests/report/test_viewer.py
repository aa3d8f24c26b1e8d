"""The slice viewer of a detection report, and the index of many scans."""

import base64
import gzip
import json
import re

import numpy as np
import pytest

from maediff.core.errors import InputError
from maediff.core.files import write_json
from maediff.detection.volumes import LAYERS, ViewerVolumes, load_volumes
from maediff.report import write_report
from maediff.report.detection import MAX_ON_PAGE
from maediff.report.viewer import make_viewer

SHARED = {"model": "t1", "modality": "T1w", "threshold": 0.1, "threshold_from": {"given": True}}
REGION = {
    "volume_ml": 1.0,
    "peak": 0.3,
    "center_mm": [1.0, 2.0, 3.0],
    "location": "</script><b>left</b>",
}


def volumes():
    layers = np.arange(4 * 2 * 3 * 5, dtype=np.uint8).reshape(4, 2, 3, 5)
    return ViewerVolumes(layers, np.diag([2.0, 2.0, 2.0, 1.0]), 0.0, 100.0, 0.5, np.eye(4))


def summary(name, regions=(REGION,)):
    return {
        "subject": name,
        "score": 0.2,
        "threshold": 0.1,
        "volume_ml": 1.0,
        "regions": list(regions),
        "qc": {"flags": []},
    }


def test_volumes_round_trip(tmp_path):
    volumes().save(tmp_path / "volumes.npz")
    loaded = load_volumes(tmp_path / "volumes.npz")
    np.testing.assert_array_equal(loaded.layers, volumes().layers)
    np.testing.assert_array_equal(loaded.to_mni, np.eye(4))
    assert (loaded.low, loaded.high, loaded.top) == (0.0, 100.0, 0.5)
    (tmp_path / "volumes.npz").write_bytes(b"PK damaged")
    with pytest.raises(InputError, match=r"volumes\.npz: cannot be read"):
        load_volumes(tmp_path / "volumes.npz")


def test_viewer_holds_the_volumes_x_fastest(tmp_path):
    volumes().save(tmp_path / "volumes.npz")
    viewer = make_viewer(tmp_path / "volumes.npz", summary("a"))
    info = json.loads(viewer.info)
    raw = gzip.decompress(base64.b64decode(viewer.volumes))
    nx, ny, nz = info["shape"]
    assert info["layers"] == list(LAYERS)
    for n, layer in enumerate(volumes().layers):
        for x, y, z in [(0, 0, 0), (1, 2, 4), (1, 0, 3)]:
            assert raw[n * nx * ny * nz + x + y * nx + z * nx * ny] == layer[x, y, z]
    assert info["maximum"] == 0.2  # twice the threshold
    scaled = make_viewer(tmp_path / "volumes.npz", summary("a") | {"unit": "default threshold"})
    assert json.loads(scaled.info)["maximum"] == 2
    assert (info["unit"], json.loads(scaled.info)["unit"]) == ("residual", "1 = default threshold")
    (shown,) = info["maps"]
    assert (shown["threshold"], shown["extent"], shown["min_volume_mm3"]) == (0.1, 1, 64)


def test_no_text_can_end_the_script(tmp_path):
    volumes().save(tmp_path / "volumes.npz")
    viewer = make_viewer(tmp_path / "volumes.npz", summary("a"))
    assert "<" not in viewer.info
    assert json.loads(viewer.info)["regions"][0]["location"] == REGION["location"]


def test_folder_without_volumes_has_no_viewer(tmp_path):
    assert make_viewer(tmp_path / "volumes.npz", summary("a")) is None


@pytest.mark.parametrize("count", [MAX_ON_PAGE, MAX_ON_PAGE + 1])
def test_many_scans_become_an_index_with_a_page_each(tmp_path, count):
    write_json(tmp_path / "detect.json", SHARED)
    for number in range(count):
        folder = tmp_path / f"sub-{number:02}"
        folder.mkdir()
        write_json(folder / "summary.json", summary(folder.name, regions=()))
        volumes().save(folder / "volumes.npz")
    page = write_report(tmp_path).read_text("utf-8")
    pages = sorted(path.parent.name for path in tmp_path.glob("*/report.html"))
    if count > MAX_ON_PAGE:
        assert len(pages) == count
        assert 'class="sortable"' in page and 'class="viewer"' not in page
        assert 'href="sub-20/report.html"' in page
        assert 'class="viewer"' in (tmp_path / "sub-03" / "report.html").read_text("utf-8")
    else:
        assert not pages
        assert page.count('class="viewer"') == count


def test_page_makes_no_request(tmp_path):
    write_json(tmp_path / "detect.json", SHARED)
    (tmp_path / "a").mkdir()
    write_json(tmp_path / "a" / "summary.json", summary("a"))
    volumes().save(tmp_path / "a" / "volumes.npz")
    page = write_report(tmp_path).read_text("utf-8")
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "fetch(" not in page and "http" not in re.sub(r'base64,[^"]*', "", page)
