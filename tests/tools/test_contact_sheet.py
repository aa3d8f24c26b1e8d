"""tools/contact_sheet.py on a cohort that only has the files that the sheet needs."""

import numpy as np
import pytest
from matplotlib.image import imread, imsave

from helpers.scripts import load_script

contact_sheet = load_script("tools/contact_sheet.py")


def write_cohort(folder, names):
    """Write a qc.csv with three scans, and a picture for each of `names`."""
    (folder / "qc.csv").write_text(
        "name,brain_ml,atlas_overlap,flags\na,1400,0.95,\nb,700,,small brain\nc,1500,0.96,\n"
    )
    for name in names:
        (folder / name).mkdir()
        imsave(folder / name / "qc.png", np.zeros((10, 40)))


def test_one_sheet_for_all_scans_with_a_picture(tmp_path, capsys):
    write_cohort(tmp_path, "abc")
    assert contact_sheet.main([str(tmp_path), str(tmp_path / "sheet.png")]) == 0
    assert capsys.readouterr().out.startswith("3 scans")
    assert imread(tmp_path / "sheet.png").shape[:2] == (407, 1760)  # two lines of two pictures


def test_titles_name_scan_volume_overlap_and_flags(tmp_path):
    write_cohort(tmp_path, "ab")
    figure = contact_sheet.draw_sheet(tmp_path, contact_sheet.rows_with_picture(tmp_path))
    titles = [(axes.get_title(), axes.title.get_color()) for axes in figure.axes]
    assert titles == [("a: 1400 ml, atlas 0.950 ", "white"), ("b: 700 ml small brain", "orange")]


@pytest.mark.parametrize("qc", [True, False])
def test_a_cohort_without_pictures_is_refused_in_one_line(tmp_path, capsys, qc):
    if qc:
        write_cohort(tmp_path, "")
    with pytest.raises(SystemExit, match="2"):
        contact_sheet.main([str(tmp_path), str(tmp_path / "sheet.png")])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path}")
    assert "maediff preprocess" in line
