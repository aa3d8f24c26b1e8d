"""Reports of detect in a real Chromium, with tools/check_report.py.

The tests skip where selenium, Chromium or its driver is missing. Accessibility is checked if the
environment variable AXE_CORE has the path of axe.min.js.
"""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from helpers.scripts import load_script
from maediff.anomaly.postprocess import PostprocessConfig, mask_inside
from maediff.anomaly.snapshots import Snapshot, save_slices
from maediff.core.files import write_json
from maediff.detection.volumes import ViewerVolumes, load_volumes
from maediff.report import write_report
from maediff.report.detection import MAX_ON_PAGE

check_report = load_script("tools/check_report.py")
HAS_BROWSER = (
    find_spec("selenium") is not None
    and check_report.CHROMIUM.is_file()
    and check_report.DRIVER.is_file()
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not HAS_BROWSER, reason="needs selenium, Chromium and its driver"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # selenium's sockets
]
AXE = Path(os.environ["AXE_CORE"]) if "AXE_CORE" in os.environ else None
SHAPE = (40, 48, 36)
CENTRES = ((24, 30, 20), (10, 12, 12))
"""Voxels in the middle of two blobs."""
AFFINE = np.array([[2, 0, 0, -40], [0, 2, 0, -50], [0, 0, 2, -30], [0, 0, 0, 1.0]])


def make_scan(folder, number=0, *, has_regions=True):
    """Write the files of a scan with two regions, or with none."""
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"))
    distances = [np.sqrt(sum((grid[i] - centre[i]) ** 2 for i in range(3))) for centre in CENTRES]
    brain = sum(((grid[i] - SHAPE[i] / 2) / (0.45 * SHAPE[i])) ** 2 for i in range(3)) < 1
    heat = np.zeros(SHAPE)
    for distance, peak in zip(distances, (250, 160), strict=True):
        heat = np.maximum(heat, peak * np.exp(-((distance / 4) ** 2)))
    scan = np.where(brain, 90 + 60 * np.sin(grid[0] / 5) + heat / 4, 0)
    heat = heat if has_regions else np.zeros(SHAPE)
    mask = heat > 100
    layers = np.stack([scan, np.where(brain, 90, 0), heat, mask]).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    ViewerVolumes(layers, AFFINE, 0.0, 1900.0, 0.255, np.eye(4)).save(folder / "volumes.npz")
    slices = np.moveaxis(layers, 3, 1)[:, 10:24:6].astype(np.float32)
    save_slices(
        folder / "slices.npz",
        Snapshot(
            slice_ids=np.arange(slices.shape[1]),
            image=slices[0] / 255,
            anomaly_map=slices[2] / 1000,
            brain=slices[0] > 0,
            mask=slices[3] > 0,
            spacing_mm=(2.0, 2.0, 12.0),
            reference=slices[1] / 255,
        ),
        np.arange(slices.shape[1]),
    )
    regions = [
        {
            "volume_ml": 2.0 - n,
            "peak": 0.25 - 0.1 * n,
            "center_mm": (AFFINE @ [*centre, 1])[:3].tolist(),
            "location": "right frontal lobe",
        }
        for n, centre in enumerate(CENTRES if has_regions else ())
    ]
    summary = {
        "subject": folder.name,
        "score": round((0.37 * number) % 1, 3),
        "threshold": 0.1,
        "volume_ml": 3.0,
        "regions": regions,
        "qc": {"flags": ["the brain has 612 ml"] if number % 3 == 1 else []},
    }
    write_json(folder / "summary.json", summary)


def make_results(folder, count, **postprocess):
    """Write a folder of detect, and return its report."""
    shared = {"model": "t1", "modality": "T1w", "threshold": 0.1, "threshold_from": {}}
    shared["postprocess"] = postprocess
    write_json(folder / "detect.json", shared)
    for number in range(count):
        make_scan(folder / f"sub-{number:02}", number)
    return write_report(folder)


@pytest.mark.parametrize("count", [1, MAX_ON_PAGE + 1])
def test_report_in_a_browser(tmp_path, count):
    page = make_results(tmp_path / "results", count)
    assert check_report.ReportCheck(page, AXE).run() == []


def test_a_viewer_without_a_region_is_checked(tmp_path):
    make_results(tmp_path, 1)
    make_scan(tmp_path / "healthy", has_regions=False)  # the first by name
    page = write_report(tmp_path)
    assert check_report.ReportCheck(page).run() == []
    shutil.rmtree(tmp_path / "sub-00")
    assert check_report.ReportCheck(write_report(tmp_path)).run() == []


@pytest.mark.parametrize("extent", [1.0, 0.4])
def test_the_viewer_counts_as_the_mask_does(tmp_path, extent):
    page = make_results(tmp_path / "results", 1, extent=extent, min_volume_mm3=64.0)
    heat = (
        load_volumes(tmp_path / "results" / "sub-00" / "volumes.npz")
        .layers[2]
        .T.astype(np.float32)
    )
    config = PostprocessConfig(erosion_iterations=0, extent=extent)
    check = check_report.ReportCheck(page)
    try:
        check.open()
        check.wait_for_viewer()
        for threshold in (0.12, 0.2):  # 0.001 is one step of the layer
            expected = mask_inside(heat, heat >= 0, 1000 * threshold, (2.0, 2.0, 2.0), config)
            check.set("threshold", threshold)
            caption = check.browser.find_element("css selector", "caption").text
            assert f" {expected.sum() * 0.008:.1f} ml above" in caption
    finally:
        check.close()


def test_check_finds_defects(tmp_path):
    page = make_results(tmp_path / "results", 1)
    defects = (
        "<script>console.error('defect')</script>"
        "<div style='width: 3000px'>wide</div>"
        "<img src='https://example.invalid/a.png' alt=''>"
    )
    text = page.read_text(encoding="utf-8")
    text = text.replace('canvas.addEventListener("pointerdown"', 'canvas.addEventListener("x"')
    page.write_text(text.replace("</main>", f"{defects}</main>"), encoding="utf-8")
    problems = "\n".join(check_report.ReportCheck(page).run())
    for problem in (
        "defect",
        "px too wide",
        "request: https://example.invalid",
        "a click on a plane left the crosshair",
        "a touch left the crosshair",
    ):
        assert problem in problems
