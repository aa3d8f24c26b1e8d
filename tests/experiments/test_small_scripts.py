"""The other scripts of experiments/: their numbers where they can be known, and small runs."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from helpers.brains import made_cohort
from helpers.runs import SMALL_MAEDIFF, made_run
from helpers.scripts import ROOT, load_script
from maediff.methods.registry import build
from maediff.models.model import read_model
from maediff.models.reference import locate

encoder_features = load_script("experiments/encoder_features/score_features.py")
mirrored_input = load_script("experiments/mirrored_input/widen_stem.py")
leak = load_script("experiments/leak/measure_leak.py")
phantoms = load_script("experiments/phantom_baselines/phantom_baselines.py")
sizes = load_script("experiments/speed/method_sizes.py")
compare_detect = load_script("experiments/speed/compare_detect.py")
noise_share = load_script("experiments/speed/noise_share.py")
time_metrics = load_script("experiments/speed/time_metrics.py")
training_speed = load_script("experiments/speed/training_speed.py")
default_rate = load_script("experiments/default_rate/default_rate.py")
loss_by_t = load_script("experiments/loss_by_level_of_noise/loss_by_t.py")
map_filters = load_script("experiments/map_filters/filter_maps.py")


def make_map_scan(images):
    """Return a scan with a brain of the whole cube."""
    return map_filters.Scan(images, images, np.ones_like(images, bool), None, (1.0, 1.0, 1.0))


def test_the_guided_filter_follows_the_edges_of_the_scan():
    step = np.zeros((9, 9, 9), np.float32)
    step[:, :, 4:] = 1
    noisy = 0.5 * step + 0.1 * np.random.default_rng(0).standard_normal(step.shape)
    filtered = map_filters.guided_filter(noisy.astype(np.float32), make_map_scan(step), 2, 1e-4)
    inner = np.s_[3:6, 3:6]
    assert filtered[*inner, 4] == pytest.approx(0.5, abs=0.05)
    assert filtered[*inner, 3] == pytest.approx(0, abs=0.05)


def test_cluster_enhancement_raises_a_large_cluster_above_a_small_one_of_equal_height():
    anomaly = np.zeros((9, 9, 9), np.float32)
    anomaly[1:5, 1:5, 1:5] = 0.3
    anomaly[7, 7, 7] = 0.3
    enhanced = map_filters.enhance_clusters(anomaly, make_map_scan(anomaly), 0.5, 2.0)
    # 64 voxels against 1: a factor of 64^0.5
    assert enhanced[2, 2, 2] == pytest.approx(8 * enhanced[7, 7, 7], rel=1e-5)
    assert enhanced[0, 0, 0] == 0


def test_distances_from_a_patch_in_the_corner():
    method = build("maediff", "tiny", {**SMALL_MAEDIFF, "size": 96, "p": 48, "r": 16})
    distance = leak.distance_from_patch(method).view(6, 6)
    by_hand = [max(0, max(row, column) - 2) for row in range(6) for column in range(6)]
    assert distance.flatten().tolist() == by_hand


def test_noise_leaks_from_the_patch_into_its_neighbours_most():
    torch.manual_seed(0)
    method = build("maediff", "tiny", SMALL_MAEDIFF).eval()
    x0 = torch.rand(2, 1, 96, 96)
    values, distance = leak.leak_by_cell(method, x0, t=250), leak.distance_from_patch(method)
    assert values.shape == distance.shape
    by_distance = [values[distance == d].mean() for d in (0, 1, int(distance.max()))]
    assert by_distance[0] > by_distance[1] > by_distance[2] >= 0


def test_brains_are_centred_in_the_slice():
    brain = np.zeros((5, 10, 10), bool)
    brain[2:4, 0:4, 5:7] = True
    shift = phantoms.centring_shift(brain)
    moved = np.roll(brain, shift, (0, 1, 2))
    assert shift == (-2, 3, -1)
    assert moved[0:2, 3:7, 4:6].all()
    assert moved.sum() == brain.sum()


def test_volumes_become_slices_with_the_front_in_the_first_row():
    volume = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    slices = phantoms.to_slices(volume)
    assert slices.shape == (4, 3, 2)
    assert slices[1, 0, 1] == volume[1, 2, 1]


@pytest.mark.slow
def test_a_table_for_phantoms_of_one_contrast(capsys):
    arguments = ["--contrast", "FLAIR", "--subjects", "1", "--templates", "1"]
    assert phantoms.main(arguments) == 0
    title, header, *rows = capsys.readouterr().out.strip().splitlines()
    assert title.startswith("FLAIR, val, 1 subjects")
    assert header.split() == list(phantoms.RESIDUALS)
    assert [row.split()[0] for row in rows] == ["bright", "large", "all"]
    assert float(rows[-1].split()[-1]) > 0.9  # the truth


def test_sizes_are_those_of_the_documentation():
    expected = "| pddpm | 1.88 M | 16 | 0.79 | 12.69 | 2.37 |"
    assert sizes.table_row("pddpm", "tiny") == expected
    assert expected in (ROOT / "docs" / "reference" / "sizes.md").read_text(encoding="utf-8")


def test_a_share_of_a_training_step():
    share, noise = noise_share.noise_share("pddpm", "tiny", repeats=1)
    assert share > 0
    assert noise == "coarse"


@pytest.mark.slow
def test_all_parts_of_an_evaluation_are_timed():
    subjects = [time_metrics.make_subject(index, (12, 32, 32)) for index in range(4)]
    assert subjects[1][0].lesion.any()
    assert subjects[0][0].healthy
    parts = time_metrics.time_scores(subjects)
    names = ["maps", "thresholds", "scores", "pooled"]
    assert [name.split(": ")[1] for name in parts] == ["l1, PSNR, SSIM", *names, *names]


@pytest.mark.slow
def test_training_speed_prints_one_line(capsys):
    arguments = ["tiny", "pddpm", "1", "--device", "cpu", "--precision", "fp32"]
    assert training_speed.main([*arguments, "--seconds", "0.01"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("pddpm tiny, batches of 1, fp32: ")


@pytest.fixture(scope="module")
def cohort_and_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scripts")
    return str(made_cohort(folder)), str(made_run(folder / "run"))


@pytest.mark.slow
def test_scores_at_rates_and_at_thresholds(cohort_and_run, capsys):
    cohort, run = cohort_and_run
    assert default_rate.main([run, cohort, "--rates", "0.01", "--thresholds", "1.0"]) == 0
    at_rate, at_threshold = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert at_rate[:2] == ["0.01", f"{read_model(run).thresholds.at_fpr(0.01).residual:.4f}"]
    assert at_threshold == ["-", "1.0000", "0.000", "0", "none"]
    with pytest.raises(SystemExit, match="2"):
        default_rate.main([run, cohort, "--rates", "0.9"])
    (line,) = capsys.readouterr().err.splitlines()
    assert "calibrated rates are" in line


@pytest.mark.slow
def test_losses_at_single_levels_of_noise(cohort_and_run, capsys):
    cohort, run = cohort_and_run
    assert loss_by_t.main([cohort, run, "--t", "95", "900"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    name, *losses = line.split("  ")
    assert name == run
    assert [loss.partition(": ")[0] for loss in losses] == ["t=95", "t=900"]
    assert float(losses[0].partition(": ")[2]) < float(losses[1].partition(": ")[2])


@pytest.mark.slow
def test_the_leak_is_printed_by_distance(cohort_and_run, capsys):
    cohort, run = cohort_and_run
    assert leak.main([run, cohort, "--slices", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("in the patch")
    assert len(lines) == 7  # 6 x 6 of 12 x 12 cells are noised
    with pytest.raises(SystemExit, match="2"):
        leak.main([run, cohort, "--t", "1000"])
    assert "from 0 to 999" in capsys.readouterr().err


def test_a_folder_without_code_is_no_checkout(tmp_path, capsys):
    with pytest.raises(SystemExit):
        compare_detect.main([str(tmp_path)])
    assert "no checkout, it has no folder src/maediff" in capsys.readouterr().err


def test_a_call_uses_the_code_of_its_checkout(tmp_path):
    command = compare_detect.detect_command(tmp_path, tmp_path / "scan", tmp_path / "out")
    assert command[:2] == ["env", f"PYTHONPATH={tmp_path / 'src'}"]
    assert command[-2:] == ["--quiet", "--overwrite"]


def test_throughput_is_relative_to_one_worker_with_one_thread(tmp_path, monkeypatch, capsys):
    seconds = iter([40.0, 20.0, 30.0])
    made = []

    def run(command):
        made.append(command[-4:])
        return compare_detect.CallFigures(wall_s=next(seconds), cpu_s=1.0, peak_gb=1.0)

    monkeypatch.setattr(compare_detect, "run_command", run)
    compare_detect.print_throughput(tmp_path, 4)
    assert len(list((tmp_path / "many").iterdir())) == 4
    assert made == [
        ["--workers", workers, "--threads", threads]
        for workers, threads in (("1", "1"), ("2", "1"), ("1", "2"))
    ]
    rows = capsys.readouterr().out.splitlines()[-3:]
    assert rows[1] == "| 2 | 1 | 4 | 20.0 | 12.0 | 2.00 |"
    assert rows[2].endswith("| 1.33 |")


def test_features_that_differ_in_one_cell_differ_there():
    f = torch.ones(1, 2, 4, 4)
    g = f.clone()
    g[0, 0, 1, 2] = -1
    maps = encoder_features.compare_features(f, g, 16)
    assert set(maps) == {"cosine, cells of 4", "distance, cells of 4"}
    assert maps["distance, cells of 4"][0, 5:7, 9:11] == pytest.approx(2.0, abs=0.5)
    assert maps["cosine, cells of 4"][0, 5:7, 9:11] == pytest.approx(1.0, abs=0.25)
    assert not maps["distance, cells of 4"][0, 12:, :].any()


@pytest.mark.slow
def test_features_are_scored_for_each_scan_with_a_lesion(cohort_and_run, tmp_path):
    cohort, run = cohort_and_run
    encoder_features.main([run, cohort, "--csv", str(tmp_path / "scores.csv")])
    header, first, *others = (tmp_path / "scores.csv").read_text().splitlines()
    assert header == ",".join(encoder_features.COLUMNS)
    assert first.startswith("now,") and ",0.0000," in first and len(others) >= 6


def test_the_first_convolution_gets_a_second_input_of_zeros(tmp_path):
    out = tmp_path / "wide"
    mirrored_input.main(["t1", str(out), "--inputs", "2", "--set", "mirror=true"])
    before, after = (load_file(path / "model.safetensors") for path in (locate("t1"), out))
    (name,) = [name for name in before if before[name].shape != after[name].shape]
    assert torch.equal(after[name][:, : before[name].shape[1]], before[name])
    assert not after[name][:, before[name].shape[1] :].any()
    assert json.loads((out / "config.json").read_text("utf-8"))["config"]["mirror"]
