"""report.html of every kind of folder: complete, self-contained, on one colour scale."""

import base64
import copy
import io
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote

import matplotlib.image
import numpy as np
import pytest

from helpers.brains import made_brain, made_volume, save
from maediff.anomaly.snapshots import Snapshot, display_maximum, save_slices
from maediff.cohort.cohort import SubjectSlices
from maediff.core.errors import InputError
from maediff.core.files import write_json, write_table, write_text
from maediff.evaluation.evaluate import write_scores
from maediff.evaluation.scoring import Contender, score
from maediff.methods.registry import METHODS, build
from maediff.models.folder import config_of, write_config
from maediff.preparation.picture import write_picture
from maediff.report import write_report
from maediff.report.charts import assign_colours, tile_chart
from maediff.report.cohort import FRAME, crop_views
from maediff.report.slices import (
    GAP_COLOUR,
    LETTER_COLOUR,
    anomaly_row,
    mask_row,
    reference_row,
    scan_row,
)
from maediff.training.samples import SAMPLES, Samples, save_samples

SPACING = (2.0, 2.0, 2.0)


def snapshot(peak=0.6, slices=2):
    brain = np.zeros((slices, 32, 32), dtype=bool)
    brain[:, 6:26, 8:24] = True
    lesion = np.zeros_like(brain)
    lesion[:, 10:14, 10:14] = True
    anomaly = np.where(lesion, peak, np.where(brain, 0.05, 0)).astype(np.float32)
    image = np.where(brain, 0.5, 0).astype(np.float32)
    ids = np.arange(slices, dtype=np.int64) + 20
    return Snapshot(ids, image, anomaly, brain, lesion, SPACING, image, lesion)


def picture(uri):
    kind, data = uri.split(",", 1)
    assert kind == "data:image/png;base64"
    return np.round(
        255 * matplotlib.image.imread(io.BytesIO(base64.b64decode(data)))[..., :3]
    ).astype(int)


@pytest.fixture
def detected(tmp_path):
    folder = tmp_path / "detect"
    write_json(
        folder / "detect.json",
        {
            "model": "run",
            "method": "maediff",
            "modality": "T1w",
            "threshold": 0.2,
            "seed": 3,
            "threshold_from": {"fpr": 0.01, "source": "healthy scans", "n_scans": 5},
            "config": {"t_test": [250], "unet": {"blocks": 1}},
            "versions": {"maediff": "0.1.0"},
        },
    )
    for name, region in (("ill", True), ("<b>odd</b> & name", False)):
        flags = [] if region else ["brain wider than 190 mm"]
        regions = (
            [{"volume_ml": 1.5, "peak": 0.6, "center_mm": [-4.4, 0.2, 31.0]}] if region else []
        )
        write_json(
            folder / name / "summary.json" if region else folder / "odd" / "summary.json",
            {
                "subject": name,
                "model": "run",
                "modality": "T1w",
                "score": 0.6,
                "threshold": 0.2,
                "volume_ml": 1.5,
                "regions": regions,
                "qc": {"flags": flags},
                "versions": {},
            },
        )
        save_slices(
            folder / (name if region else "odd") / "slices.npz", snapshot(), np.array([0, 1])
        )
    return folder


def links(html):
    found = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.extend(value for key, value in attrs if key in ("src", "href", "srcset", "data"))

    Reader().feed(html)
    return found


def test_the_report_of_a_detection_has_finding_threshold_and_flags(detected):
    html = write_report(detected).read_text("utf-8")
    for text in (
        "For research, not for diagnosis",
        "1.000% of the voxels of 5 healthy scans",
        "-4, 0, 31",
        "threshold 0.2<",
        "brain wider than 190 mm",
        "config.unet.blocks",
        "maediff 0.1.0",
    ):
        assert text in html, text
    assert "&lt;b&gt;odd&lt;/b&gt; &amp; name" in html
    assert "<b>odd" not in html
    assert html.count("Healthy reference") >= 2


def test_a_reason_with_brackets_is_told_whole(detected):
    shared = json.loads((detected / "detect.json").read_text("utf-8"))
    write_json(
        detected / "detect.json",
        {**shared, "failures": {"p": "scans [1]/x.nii: OSError: [Errno 28] No space"}},
    )
    assert "[1]/x.nii: OSError: [Errno 28] No space" in write_report(detected).read_text("utf-8")


def test_the_promise_of_a_conformal_threshold_is_told(detected):
    shared = json.loads((detected / "detect.json").read_text("utf-8"))
    shared["threshold_from"] = {"scan_fpr": 0.1, "source": "healthy scans", "n_scans": 12}
    write_json(detected / "detect.json", shared)
    said = "at most 10.00% of new healthy scans flagged, split conformal on 12 healthy scans"
    assert said in write_report(detected).read_text("utf-8")


def test_report_needs_no_other_file(detected):
    html = write_report(detected).read_text("utf-8")
    assert all(link.startswith(("data:image/", "#")) for link in links(html))
    assert "url(" not in html
    assert "<script" not in html
    anchors = {link[1:] for link in links(html) if link.startswith("#")}
    assert anchors == set(re.findall(r'<article id="([^"]+)"', html))


def test_colour_scale_is_fixed_and_never_stretched():
    assert display_maximum(0.2) == 0.4
    assert display_maximum(0.9) == 1
    assert display_maximum(None) == 0.5
    ill, healthy = (picture(anomaly_row(snapshot(peak), 0.4)) for peak in (0.4, 0.05))
    assert ill.max() > 240
    above = healthy[:-18]  # the letters
    shown = above[(above != GAP_COLOUR).any(axis=2)]  # without the lines between slices
    assert shown.max() < 100  # stretched to its own maximum, this one would glow as the other does
    np.testing.assert_array_equal(
        ill[-20, 10], healthy[-20, 10]
    )  # the same value, the same colour


def test_rows_show_what_they_say():
    shot = snapshot()
    scan, reference, mask = (
        picture(row) for row in (scan_row(shot), reference_row(shot), mask_row(shot))
    )
    assert scan.shape == reference.shape == mask.shape
    assert (scan[len(scan) // 2, 30] == 128).all()  # 0.5 on the grey scale
    assert (scan[:3] == np.array([0, 0, 0])).all(axis=2).mean() > 0.9  # background
    assert (np.ptp(mask, axis=2) > 50).any()  # the mask in colour
    assert not (np.ptp(scan, axis=2) > 50).any()
    outlined = picture(scan_row(shot, truth=True))
    assert (outlined == [64, 214, 255]).all(axis=2).any()
    assert reference_row(Snapshot(**{**vars(shot), "reference": None})) is None


def test_the_patients_left_is_marked_in_every_slice():
    shot = snapshot(slices=2)
    row = picture(scan_row(shot))
    width = (row.shape[1] - 4) // 2  # two slices and the white between them
    for tile in (row[:, :width], row[:, -width:]):
        letters = (tile == LETTER_COLOUR).all(axis=2)
        height, middle = letters.shape[0] // 2, width // 2
        assert not letters[:height].any()
        left, right = letters[height:, :middle], letters[height:, middle:]
        assert left[:, np.flatnonzero(left.any(axis=0))[0]].sum() == 14  # the stem of an L
        assert right[:, middle // 2 :].sum() > left.sum()  # an R has more to it
    one = snapshot()
    tiny = Snapshot(
        **{**vars(one), "brain": one.brain & (np.indices(one.brain.shape)[1:] == 16).all(axis=0)}
    )
    assert not (picture(scan_row(tiny)) == LETTER_COLOUR).all(axis=2).any()  # no room


def test_slices_are_named_by_their_height_where_it_is_known(detected):
    assert "<span>21</span>" in write_report(detected).read_text(
        "utf-8"
    )  # of an older version's folder: by number
    shot = Snapshot(**{**vars(snapshot()), "z_mm": np.array([-12.4, 30.6])})
    save_slices(detected / "ill" / "slices.npz", shot, np.array([0, 1]))
    html = write_report(detected).read_text("utf-8")
    assert "z, RAS+ mm" in html and "<span>-12</span>" in html and "<span>31</span>" in html


def test_slices_without_brain_can_be_drawn():
    shot = snapshot()
    assert (
        picture(scan_row(Snapshot(**{**vars(shot), "brain": np.zeros_like(shot.brain)}))).shape[0]
        == 64
    )


def test_the_report_of_a_run_has_its_settings_and_curves(tmp_path):
    run = tmp_path / "run"
    method = build("ddpm", "tiny", {"unet": {"channels": (8, 16)}})
    write_config(
        run,
        {
            "method": "ddpm",
            "preset": "tiny",
            "config": config_of(method),
            "seed": 1,
            "cohort": {"modality": "FLAIR"},
        },
    )
    assert "No checkpoint yet" in write_report(run).read_text("utf-8")
    write_text(
        run / "metrics.csv",
        "step,train_loss,val_loss,seconds\n10,0.5,0.4,1\n20,0.3,0.25,2\n30,0.2,0.3,3\n",
    )
    write_json(run / "provenance.json", {"parameters": 12345, "step": 30})
    html = write_report(run).read_text("utf-8")
    assert "Lowest validation loss 0.2500 at step 20" in html
    assert "data:image/svg+xml;base64" in html
    assert "12,345" in html
    write_text(
        run / "metrics.csv", "step,train_loss,val_loss,seconds\n10,0.5,,1\n"
    )  # a cohort without val
    assert "Lowest" not in write_report(run).read_text("utf-8")


@pytest.fixture
def evaluated(tmp_path):
    rng = np.random.default_rng(0)
    shot = snapshot(slices=6)
    subjects = []
    for name, healthy in (("ill-1", False), ("ill-2", False), ("well", True)):
        images = (shot.image + 0.1 * rng.random(shot.image.shape) * shot.brain).astype(np.float32)
        lesion, extra = (
            (shot.brain & False, {}) if healthy else (shot.lesion, {"lesion_kind": "dark"})
        )
        subjects.append(
            SubjectSlices(
                name=name,
                person=name,
                images=images,
                brain=shot.brain,
                lesion=lesion,
                lesion_free=np.ones(6, dtype=bool),
                slice_ids=np.arange(6, dtype=np.int64),
                affine=np.eye(4),
                affine_to_scan=np.diag((2.0, 2.0, 2.0, 1.0)),
                spacing_mm=SPACING,
                healthy=healthy,
                extra=extra,
            )
        )
    contenders = [
        Contender(
            name="bright", group="bright", predict=lambda s: (s.images, None), trained=False
        ),
        Contender(
            name="net-0", group="net", predict=lambda s: (shot.anomaly_map, s.images), seed=0
        ),
        Contender(
            name="net-1", group="net", predict=lambda s: (shot.anomaly_map / 2, s.images), seed=1
        ),
    ]
    folder = tmp_path / "eval"
    rows, summary, curves = score(contenders, subjects, subjects, slices=folder / "slices")
    write_json(
        folder / "summary.json", {**summary, "notes": ["Read this <note>."], "score_split": "test"}
    )
    write_scores(folder / "scores.csv", rows)
    write_json(folder / "curves.json", curves)
    return folder


def test_the_report_of_an_evaluation_has_runs_and_baselines(evaluated):
    html = write_report(evaluated).read_text("utf-8")
    for text in (
        "2 runs and 1 simple baseline on 3 subjects",
        "net-0",
        "bright (best baseline)",
        "net - bright",
        "Curves",
        "Comparison",
        "raw residual [%]",
        "AUPRC by kind of lesion",
        "oracle (not",
        "Read this &lt;note&gt;.",
        "seeds pooled",
        "lesion mask outlined",
        "For research, not for diagnosis",
    ):
        assert text in html, text
    assert all(link.startswith(("data:image/", "#")) for link in links(html))
    assert html.count("<article") == 3
    assert "nan" not in re.sub(r"base64,[^\"]+", "", html)


def test_run_named_like_a_formula(evaluated):
    for name, old, new in (
        ("scores.csv", "\nnet-1,", "\n'=net-1,"),
        ("summary.json", '"net-1"', '"=net-1"'),
        ("curves.json", '"net-1"', '"=net-1"'),
    ):
        text = (evaluated / name).read_text("utf-8")
        assert old in text
        (evaluated / name).write_text(text.replace(old, new))
    assert "=net-1" in write_report(evaluated).read_text("utf-8")


def test_comparison_and_curves_are_drawn_from_files(evaluated):
    html = write_report(evaluated).read_text("utf-8")
    figure = r'<figure class="scroll wide"[^>]*><img style="[^"]+" src="([^"]+)"'
    comparison = re.search(figure, html)[1]
    shown = picture(comparison)
    assert (shown == [64, 214, 255]).all(axis=2).any()  # the truth's outline
    assert html.count("<figure") == 4
    curves = json.loads((evaluated / "curves.json").read_text("utf-8"))
    assert curves.keys() == {"bright", "net-0", "net-1"}
    net = curves["net-0"]
    assert net["precision_recall"]["precision"][0] == 1  # that map is the lesion itself
    oracle = json.loads((evaluated / "summary.json").read_text("utf-8"))["methods"]["net-0"][
        "dice_oracle"
    ]["mean"]
    assert max(net["dice_by_threshold"]["dice"]) == pytest.approx(oracle)
    assert net["lesions"]["found"] == [True, True]
    assert net["lesions"]["volume_ml"] == pytest.approx([6 * 16 * 8 / 1000] * 2)
    (evaluated / "curves.json").unlink()  # of an earlier version
    assert write_report(evaluated).read_text("utf-8").count("<figure") == 1


def test_every_method_of_the_package_has_a_colour_of_its_own():
    names = dict.fromkeys([*METHODS, "pddpm s=48", "pddpm s=16"])
    assert len(set(assign_colours(names, "bright").values())) == len(names)


def test_tiles_of_different_sizes_are_centred_under_their_headings():
    small, large = np.full((20, 30, 3), 200, np.uint8), np.full((40, 50, 3), 100, np.uint8)
    shown = picture(tile_chart([("one", [small, large])], ["a", "b"]))
    tile = shown[40:80, 110:160]
    assert (tile[10:30, 10:40] == 200).all()
    assert (tile[:10] == 0).all()
    assert (shown[40:80, 164:214] == 100).all()


def test_demo_joins_the_reports_of_its_parts(tmp_path, detected, evaluated):
    html = write_report(tmp_path).read_text("utf-8")
    assert "Detection: Scans" in html
    assert "Evaluation: Scores" in html


def test_damage_is_named(tmp_path, detected):
    with pytest.raises(InputError, match="holds neither"):
        write_report(tmp_path / "detect" / "ill")
    with pytest.raises(InputError, match="no such folder"):
        write_report(tmp_path / "nowhere")
    shared = json.loads((detected / "detect.json").read_text("utf-8"))
    for threshold in ("x", [], None):
        write_json(detected / "detect.json", shared | {"threshold": threshold})
        with pytest.raises(
            InputError,
            match=r"detect: its files are not as this version writes them .*; run the comm",
        ):
            write_report(detected)
    write_json(detected / "detect.json", shared)
    (detected / "ill" / "slices.npz").unlink()
    assert "Pictures are missing: slices.npz" in write_report(detected).read_text("utf-8")
    (detected / "ill" / "summary.json").write_text("{")
    page = write_report(detected).read_text("utf-8")  # the others are shown
    assert "summary.json is damaged" in page and ">Failed<" in page
    changed = copy.deepcopy(shared)
    del changed["threshold"]
    write_json(detected / "detect.json", changed)
    with pytest.raises(InputError, match="threshold"):
        write_report(detected)
    (detected / "detect.json").write_text("{")
    with pytest.raises(InputError, match=r"detect\.json"):
        write_report(detected)


def test_course_of_a_training(tmp_path):
    run = tmp_path / "run"
    method = build("ddpm", "tiny", {"unet": {"channels": (8, 16)}})
    train = {"steps": 400, "learning_rate": 1e-4}
    config = {"method": "ddpm", "preset": "tiny", "config": config_of(method), "train": train}
    write_config(run, {**config, "seed": 1, "cohort": {"modality": "FLAIR"}})
    header = "step,train_loss,val_loss,seconds,learning_rate\n"
    write_text(run / "metrics.csv", header + "100,0.5,0.4,600,1e-4\n200,0.3,,1200,5e-5\n")
    shot = snapshot()
    references = np.stack([shot.image, 0.5 * shot.image])
    save_samples(run / SAMPLES, Samples(shot.image, shot.brain, np.array([100, 200]), references))
    html = write_report(run).read_text("utf-8")
    for text in (
        "200 of 400 steps (50%)",
        "20 min",
        "about 20 min",
        "Learning rate at each checkpoint",
        "Reconstructions over time",
    ):
        assert text in html, text
    write_text(run / "metrics.csv", header + "400,0.5,0.4,7300,1e-4\n")
    html = write_report(run).read_text("utf-8")
    assert "none, the last step is done" in html and "2 h 2 min" in html


def test_damaged_parts_of_a_run_are_named_and_the_rest_is_shown(tmp_path):
    run = tmp_path / "run"
    method = build("ddpm", "tiny", {"unet": {"channels": (8, 16)}})
    command = "maediff train ddpm --cohort /home/ann/secret scans/cohort -o /home/ann/run"
    config = {"method": "ddpm", "preset": "tiny", "config": config_of(method), "seed": 1}
    write_config(run, config)
    write_json(run / "provenance.json", {"parameters": 12345, "command": command})
    write_text(run / "metrics.csv", "step,train_loss\n1,x\n")
    (run / SAMPLES).write_bytes(b"PK")
    html = write_report(run).read_text("utf-8")
    assert "metrics.csv is damaged" in html and "12,345" in html
    assert "samples.npz: missing or damaged" in html
    assert "--cohort cohort -o run" in html
    assert "/home" not in html and str(tmp_path) not in html
    (run / "provenance.json").write_text("{")
    assert "provenance.json is damaged" in write_report(run).read_text("utf-8")


@pytest.fixture
def prepared(tmp_path):
    """A cohort of four scans: with a picture, without one, damaged, and failed."""
    folder = tmp_path / "cohort"
    write_json(folder / "cohort.json", {"format": 2, "modality": "FLAIR", "grid": {"size": 96}})
    columns = ("subject", "session", "dataset", "split", "healthy")
    lines = [
        ("a", "", "lab", "train", "1"),
        ("b", "2", "lab", "val", "0"),
        ("bad <b>", "", "lab", "test", ""),
    ]
    write_table(folder / "manifest.csv", columns, lines)
    checks = [
        ("a", "ok", "", "1200.5", ""),
        ("b_2", "flagged", "stretched 1.64 times", "1000", "a note"),
        ("bad <b>", "ok", "", "1100", ""),
        ("c", "failed", "/home/ann/MR scans/c.nii: 2 dimensions", "", ""),
    ]
    write_table(folder / "qc.csv", ("name", "status", "flags", "brain_ml", "notes"), checks)
    data, brain, affine = made_brain((24, 28, 20), (4.0, 4.0, 4.0), (40.0, 48.0, 36.0))
    write_picture(make_folder(folder / "a") / "qc.png", made_volume(data, affine), brain)
    save(folder / "b_2" / "image.nii.gz", data, affine)
    save(folder / "b_2" / "brain_mask.nii.gz", brain, affine)
    (make_folder(folder / "bad <b>") / "qc.png").write_bytes(b"no picture")
    return folder


def make_folder(path):
    path.mkdir(parents=True)
    return path


def test_cohort_shows_every_outline(prepared):
    html = write_report(prepared).read_text("utf-8")
    for text in (
        "3 of 4 scans were prepared. Quality control flagged 1 of them.",
        "train 1, val 1, test 1",
        "healthy 1, with a lesion 1, health unknown 1",
        "train · FLAIR · healthy · brain 1200 ml",
        "<td>1200</td>",
        "val · FLAIR · with a lesion · brain 1000 ml",
        "stretched 1.64 times",
        "no picture: qc.png: cannot be read",
        "c.nii: 2 dimensions",
        "bad &lt;b&gt;",
    ):
        assert text in html, text
    assert "/home" not in html and str(prepared) not in html
    assert html.count("data:image/jpeg") == 3  # two tiles, and the flagged scan in full size


def test_views_of_an_outline_lose_their_common_black_frame():
    views = np.zeros((20, 2, 20, 3), np.uint8)
    views[8:12, 0, 5:9] = 200
    views[10:13, 1, 7:11] = 200
    cropped = crop_views(views.reshape(20, 40, 3))
    box = views[8 - FRAME : 13 + FRAME, :, 5 - FRAME : 11 + FRAME]
    np.testing.assert_array_equal(cropped, box.reshape(box.shape[0], -1, 3))
    black = np.zeros((20, 40, 3), np.uint8)
    np.testing.assert_array_equal(crop_views(black), black)


def test_table_of_a_cohort_has_no_empty_column(prepared):
    html = write_report(prepared).read_text("utf-8")
    heads = re.findall(r'<th scope="col">([^<]*)</th>', html)
    assert heads == ["Scan", "Split", "Health", "Status", "Flags", "Brain, ml", "Notes"]


def test_cohort_without_its_tables(prepared):
    (prepared / "qc.csv").write_bytes(b"\xff\xfe\x00")
    html = write_report(prepared).read_text("utf-8")
    assert "qc.csv cannot be read" in html and "no line in qc.csv" in html
    assert html.count("data:image/jpeg") == 2
    (prepared / "manifest.csv").unlink()
    html = write_report(prepared).read_text("utf-8")
    assert "manifest.csv cannot be read (FileNotFoundError)" in html


@pytest.fixture
def paper_evaluation(evaluated):
    """An evaluation whose runs are pDDPM with stride 16 and MAEDiff."""
    summary = json.loads((evaluated / "summary.json").read_text("utf-8"))
    summary["runs"] = {
        "net-0": {"method": "maediff", "config": {"s": 48}},
        "net-1": {"method": "pddpm", "config": {"s": 16}},
    }
    write_json(evaluated / "summary.json", summary)
    slices = evaluated / "slices"
    shutil.copytree(slices / "net-0", slices / "net-1", dirs_exist_ok=True)
    return evaluated


def test_figure_of_the_paper_has_the_methods_in_its_order(paper_evaluation, monkeypatch):
    drawn = []

    def draw(rows, columns):
        drawn.append((rows, columns))
        return tile_chart(rows, columns)

    monkeypatch.setattr("maediff.report.comparison.charts.tile_chart", draw)
    html = write_report(paper_evaluation).read_text("utf-8")
    (rows, columns) = drawn[0]
    assert columns == ["input", "pDDPM (s16)", "MAEDiff", "truth"]
    assert [text for text, _ in rows][:2] == ["ill-1 reconstruction", "ill-1 anomaly map"]
    assert len(rows) == 6 and all(len(tiles) == 4 for _, tiles in rows)
    assert "Not in this evaluation: AnoDDPM, pDDPM (s48)." in html
    summary = json.loads((paper_evaluation / "summary.json").read_text("utf-8"))
    del summary["runs"]
    write_json(paper_evaluation / "summary.json", summary)
    assert "Figure as in the paper" not in write_report(paper_evaluation).read_text("utf-8")


def test_no_figure_of_the_paper_with_one_of_its_methods(paper_evaluation):
    summary = json.loads((paper_evaluation / "summary.json").read_text("utf-8"))
    del summary["runs"]["net-1"]
    write_json(paper_evaluation / "summary.json", summary)
    assert "Figure as in the paper" not in write_report(paper_evaluation).read_text("utf-8")


def test_text_between_backticks_is_code(evaluated):
    summary = json.loads((evaluated / "summary.json").read_text("utf-8"))
    summary["notes"] = ["maps of `maediff detect` & <b>`more`", "a single ` stays"]
    write_json(evaluated / "summary.json", summary)
    html = write_report(evaluated).read_text("utf-8")
    assert "of <code>maediff detect</code> &amp; &lt;b&gt;<code>more</code>" in html
    assert "a single ` stays" in html


def test_page_of_one_scan_starts_with_its_pictures(detected):
    shutil.rmtree(detected / "odd")
    stated = json.loads((detected / "detect.json").read_text("utf-8"))
    write_json(detected / "detect.json", {**stated, "command": "maediff detect /home/ann/a.nii"})
    html = write_report(detected).read_text("utf-8")
    order = ("<h2>Scan</h2>", 'id="scan-0"', "colour scale", "Method and command", "Versions")
    places = [html.index(text) for text in order]
    assert places == sorted(places)
    assert "Largest region" not in html
    assert ">maediff detect a.nii</pre>" in html


def test_names_of_slices_are_below_the_slices(detected):
    brain = made_volume(np.ones((20, 20, 20)), np.eye(4))
    write_picture(detected / "ill" / "qc.png", brain, np.ones((20, 20, 20), dtype=bool))
    html = write_report(detected).read_text("utf-8")
    assert html.index('class="ids"') < html.index("Brain outline")


def test_damaged_slices_of_an_evaluation_are_named(paper_evaluation):
    (paper_evaluation / "slices" / "net-0" / "ill-1.npz").write_bytes(b"PK")
    html = write_report(paper_evaluation).read_text("utf-8")
    assert html.count("ill-1 is missing here: slices/net-0/ill-1.npz") == 2
    assert "ill-2: net" in html and str(paper_evaluation) not in html


def test_comparison_before_and_after_scoring(tmp_path, evaluated):
    folder = tmp_path / "compare"
    run = {"method": "dae", "seed": 1, "done": True, "step": 5, "steps": 9, "seconds": 200.0}
    budget = {"preset": "tiny", "steps": None, "max_time": "90s"}
    record = {"budget": budget, "modality": "T1w", "runs": {"dae-1": run}, "python": "3.11"}
    write_json(folder / "compare.json", {**record, "command": "maediff compare --out /home/ann/x"})
    html = write_report(folder).read_text("utf-8")
    for text in ("They are not scored yet", "5 of 9", "3 min", "90s", "--out x"):
        assert text in html, text
    assert "/home" not in html
    evaluated.rename(folder / "eval")
    make_folder(folder / "runs" / "dae-1")
    (folder / "runs" / "dae-1" / "report.html").touch()
    html = write_report(folder).read_text("utf-8")
    assert "2 runs and 1 simple baseline" in html and "AUPRC" in html
    assert 'href="runs/dae-1/report.html"' in html
    (folder / "eval" / "summary.json").write_text("{")
    html = write_report(folder).read_text("utf-8")
    assert "Missing parts" in html and "5 of 9" in html and str(tmp_path) not in html


def test_sentence_compares_with_healthy_scans(detected):
    shared = json.loads((detected / "detect.json").read_text("utf-8"))
    origin = {"n_marked": 2, "n_scores": 18, "healthy_ml_median": 0.0, "healthy_ml_p90": 1.5}
    write_json(detected / "detect.json", {**shared, "threshold_from": origin})
    expected = (
        "1 region, 1.5 ml. In healthy scans, run detects 0 ml in the median, at most 1.5 ml in "
        "nine of ten, regions in 2 of 18."
    )
    assert expected in write_report(detected).read_text("utf-8")


def test_pages_of_a_derivative_with_many_scans(tmp_path, detected):
    """Links of the index lead to pages beside it, and not into the hidden folder."""
    out = tmp_path / "derivative"
    work = out / ".detect"
    out.mkdir()
    detected.rename(work)
    text = (work / "ill" / "summary.json").read_text("utf-8")
    for number in range(21):
        folder = make_folder(work / f"sub {number}")
        (folder / "summary.json").write_text(text)
    html = write_report(out).read_text("utf-8")
    pages = [link for link in links(html) if link.endswith(".html")]
    assert len(pages) == 23 and "scan_reports/sub%203.html" in pages
    assert all((out / unquote(page)).is_file() for page in pages)
    assert not list(work.rglob("report.html"))


def test_pages_of_a_run_and_of_an_evaluation_import_no_network():
    """A report is drawn after every `evaluate`; torch alone takes seconds to import."""
    code = (
        "import sys, maediff.report.training, maediff.report.evaluation\n"
        "heavy = {'torch', 'lightning_fabric', 'SimpleITK', 'nibabel'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
