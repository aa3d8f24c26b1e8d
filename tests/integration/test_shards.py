"""Shards of `detect`, `preprocess` and `evaluate`: merged, they equal one plain command."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from helpers.brains import ball, made_brain, save
from helpers.cli import PLAIN
from helpers.detection import detect_in
from helpers.options import QUIET, UNREGISTERED
from helpers.runs import made_run
from helpers.scores import made_small_run
from maediff.cli import app
from maediff.cohort.preprocess import preprocess
from maediff.core.errors import InputError
from maediff.core.options import RunOptions
from maediff.core.shards import MERGED, Shard
from maediff.detection import detect as detect_module
from maediff.evaluation.evaluate import evaluate
from maediff.preparation.quality import QualityConfig
from maediff.report.shards import merge_shards

SHARDS = [Shard(index, 3) for index in (1, 2, 3)]
UNALIGNED = QualityConfig(align="never")


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Folder of five thick-slice scans of four subjects."""
    folder = tmp_path_factory.mktemp("scans")
    for number, name in enumerate(
        ("sub-1_ses-1", "sub-1_ses-2", "sub-2_ses-1", "sub-3_ses-1", "sub-7_ses-1")
    ):
        data, _, affine = made_brain((60, 72, 10), (2.0, 2.0, 8.0), seed=number)
        save(folder / f"{name}_T1w.nii.gz", data, affine)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made_run(tmp_path_factory.mktemp("runs") / "run")


def files_of(folder, without=()):
    """Return the content of all files by relative path, except records of shards and reports."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.relative_to(folder).parts[0] != "shards"
        and path.name not in ("report.html", ".maediff", *without)
    }


def detect_shard(scans, out, run, shard=None, **changes):
    changes = {"qc": UNALIGNED, "threshold": 0.2, **changes}
    return detect_in([scans], out, run, shard=shard, **changes)


def shard_run(shard, **changes):
    return RunOptions(quiet=True, device="cpu", shard=shard, **changes)


def test_shards_of_detect_equal_one_run(scans, run, tmp_path):
    plain, out = tmp_path / "plain", tmp_path / "out"
    detect_shard(scans, plain, run)
    names = []
    for shard in SHARDS[::-1]:
        names += [entry["subject"] for entry in detect_shard(scans, out, run, shard).summaries]
        assert not (out / "participants_findings.tsv").exists()
    assert len(names) == len({*names}) == 5
    assert merge_shards(out) == ["1/3", "2/3", "3/3"]
    assert files_of(out) == files_of(plain)
    assert merge_shards(out) == []  # nothing is new
    assert not list((plain / "shards").glob("*"))


def test_killed_shard_is_resumed(scans, run, tmp_path, monkeypatch):
    plain, out = tmp_path / "plain", tmp_path / "out"
    detect_shard(scans, plain, run)
    original, calls = detect_module._process, []

    def process(ref, job, load):
        calls.append(ref.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(ref, job, load)

    monkeypatch.setattr(detect_module, "_process", process)
    with pytest.raises(KeyboardInterrupt):
        for shard in SHARDS:
            detect_shard(scans, out, run, shard)
    monkeypatch.setattr(detect_module, "_process", original)
    with pytest.raises(InputError, match="has not finished"):
        merge_shards(out)
    with pytest.raises(InputError, match="was started before; use `resume=True`"):
        for shard in SHARDS:
            detect_shard(scans, out, run, shard)
    for shard in SHARDS:
        detect_shard(scans, out, run, shard, resume=True)
    merge_shards(out)
    assert files_of(out) == files_of(plain)


def test_failed_scans_are_merged(scans, run, tmp_path):
    broken = tmp_path / "in"
    broken.mkdir()
    for path in scans.iterdir():
        content = path.read_bytes()
        (broken / path.name).write_bytes(content[:200] if "sub-3" in path.name else content)
    plain, out = tmp_path / "plain", tmp_path / "out"
    detect_shard(broken, plain, run)
    for shard in SHARDS:
        detect_shard(broken, out, run, shard)
    merge_shards(out)
    assert files_of(out) == files_of(plain)
    assert set(json.loads((out / "detect.json").read_text("utf-8"))["failures"]) == {"sub-3_ses-1"}
    detect_shard(broken, out, run, SHARDS[0], resume=True)  # the same results once more
    assert merge_shards(out) == ["1/3", "2/3", "3/3"]
    assert files_of(out) == files_of(plain)


def test_other_settings_and_other_scans_are_refused(scans, run, tmp_path):
    out = tmp_path / "out"
    detect_shard(scans, out, run, SHARDS[0])
    before = files_of(out)
    with pytest.raises(InputError, match=r"shard 1/3 was started with threshold 0.2, but shard 2"):
        detect_shard(scans, out, run, SHARDS[1], threshold=0.3)
    one = next(iter(sorted(scans.iterdir())))
    with pytest.raises(InputError, match="shard 1/3 was started with scans "):
        detect_in([one], out, run, shard=SHARDS[1], qc=UNALIGNED, threshold=0.2)
    copy = shutil.copytree(scans, tmp_path / "copy")  # its name decides which shard has a scan
    with pytest.raises(InputError, match="shard 1/3 was started with scans "):
        detect_shard(copy, out, run, SHARDS[1])
    assert files_of(out) == before


def test_shard_without_subject(scans, run, tmp_path):
    one = tmp_path / "in" / "sub-1_T1w.nii.gz"
    one.parent.mkdir()
    one.write_bytes(next(iter(sorted(scans.iterdir()))).read_bytes())
    out = tmp_path / "out"
    reports = [detect_shard(one.parent, out, run, shard) for shard in SHARDS]
    assert sorted(len(report.summaries) for report in reports) == [0, 0, 1]
    assert merge_shards(out)


def test_plain_command_replaces_the_records(scans, run, tmp_path):
    out = tmp_path / "out"
    detect_shard(scans, out, run, SHARDS[0])
    detect_shard(scans, out, run, resume=True)
    assert merge_shards(out) == []
    detect_shard(scans, tmp_path / "plain", run)
    assert files_of(out) == files_of(tmp_path / "plain")


def test_shards_of_preprocess_equal_one_run(scans, tmp_path):
    plain, out = tmp_path / "plain", tmp_path / "out"
    arguments = {"modality": "T1w", "preparation": UNREGISTERED}
    preprocess([scans], plain, run=QUIET, **arguments)
    for shard in SHARDS[:2]:
        preprocess([scans], out, run=shard_run(shard), **arguments)
    with pytest.raises(InputError, match="shard 3/3 has not finished"):
        merge_shards(out)
    assert not (out / "cohort.json").exists()
    preprocess([scans], out, run=shard_run(SHARDS[2]), **arguments)
    merge_shards(out)
    without = ("image.json",)  # holds the seconds
    assert files_of(out, without) == files_of(plain, without)


def test_shards_of_evaluate_equal_one_run(tmp_path):
    folder = tmp_path / "in"
    lines = ["subject,image,lesion_mask,split,healthy"]
    for number, split in enumerate(("train", "val", "test")):
        for healthy in (1, 0):
            name = f"{split}-{healthy}"
            data, brain, affine = made_brain((60, 72, 10), (2.0, 2.0, 8.0), seed=number)
            lesion = ball(data.shape, affine, (15, 10, 0), 15) & brain & (healthy == 0)
            save(folder / f"{name}.nii.gz", data + 60 * lesion, affine)
            save(folder / f"{name}_lesion_mask.nii.gz", lesion, affine)
            lines.append(f"{name},{name}.nii.gz,{name}_lesion_mask.nii.gz,{split},{healthy}")
    (folder / "scans.csv").write_text("\n".join(lines))
    cohort, plain, out = tmp_path / "cohort", tmp_path / "plain", tmp_path / "out"
    preprocess(
        [folder / "scans.csv"], cohort, modality="FLAIR", preparation=UNREGISTERED, run=QUIET
    )
    runs = [made_small_run(tmp_path / "ddpm")]
    evaluate(runs, cohort, plain, run=QUIET)
    scans = [
        name
        for shard in SHARDS
        for name in evaluate(runs, cohort, out, run=shard_run(shard))["scans"]
    ]
    assert sorted(scans) == ["test-0", "test-1", "val-0", "val-1"]
    damaged = next(iter(sorted((out / "shards" / "predictions" / "ddpm").iterdir())))
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(InputError, match=rf"{damaged.name}: missing or damaged.*`resume=True`"):
        merge_shards(out, QUIET)
    for shard in SHARDS:
        evaluate(runs, cohort, out, run=shard_run(shard, resume=True))
    merge_shards(out, QUIET)
    assert (out / MERGED).is_file()
    assert files_of(out) == files_of(plain)
    with pytest.raises(InputError, match="only a shard of an evaluation can be continued"):
        evaluate(runs, cohort, tmp_path / "other", run=RunOptions(quiet=True, resume=True))


def test_commands(scans, run, tmp_path):
    out = tmp_path / "out"
    arguments = ["detect", str(scans), "-o", str(out), "--model", str(run), "-q"]
    arguments += ["--threshold", "0.2", "--set", "qc.align=never"]
    for text in ("1/2", "2/2"):
        result = CliRunner().invoke(app, [*arguments, "--shard", text], env=PLAIN)
        assert result.exit_code == 0, result.output
        assert f"shard {text}: finished, " in result.output
        assert f"maediff report {out}" in result.output
    result = CliRunner().invoke(app, ["report", str(out)], env=PLAIN)
    assert "merged: shards 1/2, 2/2" in result.output
    assert (out / "report.html").is_file() and (out / "participants_findings.tsv").is_file()
    result = CliRunner().invoke(
        app, [*arguments, "--shard", "1/2", "--bids-derivative"], env=PLAIN
    )
    assert isinstance(result.exception, InputError)
