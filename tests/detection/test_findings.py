"""Tables of regions and of a folder of results."""

import csv

from maediff.detection.findings import describe_finding, write_findings, write_regions

REGION = {
    "volume_ml": 1.5,
    "peak": 0.25,
    "mean": 0.125,
    "center_mm": (1.0, -2.0, 3.5),
    "mni_mm": (10.0, 20.0, 30.0),
    "side": "right",
    "location": "right frontal lobe, white matter",
}


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def summary(name, flags=(), regions=(REGION,)):
    return {
        "subject": name,
        "modality": "T1w",
        "score": 0.5,
        "threshold": 0.1,
        "volume_ml": 1.5,
        "regions": list(regions),
        "qc": {"flags": list(flags), "brain_ml": 1400.0},
        "model": "t1",
        "versions": {"maediff": "1.2.3"},
    }


def test_line_of_a_scan_has_flags_first_and_what_is_usual():
    shared = {"model": "t1", "threshold_from": {"n_marked": 1, "n_scores": 18}}
    flagged = summary("a", flags=["the brain has 612 ml", "scaled to fit"])
    assert describe_finding(flagged, shared) == (
        "a: FLAGGED (the brain has 612 ml | scaled to fit); 1 region, 1.5 ml, right frontal lobe, "
        "white matter; score 0.5, threshold 0.1; in healthy scans, t1 detects regions in 1 of 18"
    )


def test_line_of_a_scan_without_calibration():
    assert describe_finding(summary("a", regions=()), {"threshold_from": {"given": True}}) == (
        "a: no region; score 0.5, threshold 0.1"
    )
    unnamed = {"volume_ml": 0.5, "peak": 0.2, "center_mm": (0.0, 0.0, 0.0)}
    two = summary("a", regions=(REGION, unnamed))
    assert "a: 2 regions, 1.5 ml, largest 1.5 ml, right frontal" in describe_finding(two, {})


def test_unknown_values_of_a_region_are_n_a(tmp_path):
    unregistered = {"volume_ml": 0.1, "peak": 0.2, "center_mm": (0.0, 0.0, 0.0)}
    write_regions(tmp_path / "regions.tsv", [REGION, unregistered])
    first, second = read(tmp_path / "regions.tsv")
    assert (first["region"], first["volume_ml"], first["mni_z_mm"]) == ("1", "1.5", "30")
    assert first["location"] == "right frontal lobe, white matter"
    assert (second["mni_x_mm"], second["side"], second["mean"]) == ("n/a", "n/a", "n/a")


def test_failed_and_flagged_scans_are_listed(tmp_path):
    path = tmp_path / "participants_findings.tsv"
    write_findings(
        path,
        [summary("b", flags=["scaled to fit"]), summary("a", regions=())],
        {"c": "c.nii: damaged"},
    )
    rows = {row["participant_id"]: row for row in read(path)}
    assert list(rows) == ["a", "b", "c"]
    assert [rows[name]["status"] for name in "abc"] == ["ok", "flagged", "failed"]
    assert rows["b"]["flags"] == "scaled to fit"
    assert (rows["a"]["largest_region_ml"], rows["a"]["largest_region_location"]) == ("0", "n/a")
    assert rows["c"]["reason"] == "c.nii: damaged"
    assert rows["c"]["volume_ml"] == "n/a"


def test_hostile_names(tmp_path):
    path = tmp_path / "participants_findings.tsv"
    write_findings(path, [summary("=1+1\tx\nrow\x1b[31m\u202eevil")], {})
    (row,) = read(path)
    assert row["participant_id"] == r"'=1+1\tx\nrow\x1b[31m\u202eevil"
