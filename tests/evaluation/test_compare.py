"""Plans, refusals, and comparisons that are stopped and resumed."""

import json
import logging
from dataclasses import replace

import pytest

import maediff.evaluation.compare as module
from helpers.brains import made_cohort
from helpers.options import QUIET, RESUME
from maediff.core.errors import InputError
from maediff.core.files import write_json
from maediff.core.options import RunOptions
from maediff.evaluation.compare import Budget, Plan, compare, plan_runs, seconds_used

BUDGET = Budget(preset="tiny", steps=4)
UNET = {"channels": [8, 16], "blocks": 1, "attention": False, "stem": 2}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return made_cohort(tmp_path_factory.mktemp("compare"))


# ---- plans


def test_one_training_for_several_test_settings():
    plan = plan_runs(
        ["maediff", "pddpm@s=48", "pddpm@s=16"], [0, 1], BUDGET, method_seeds={"pddpm": [1]}
    )
    assert [(run.name, run.test_settings) for run in plan.runs] == [
        ("maediff-0", ("",)),
        ("maediff-1", ("",)),
        ("pddpm-1", ("s=48", "s=16")),
    ]
    assert all(run.settings == {"train": {"steps": 4}} for run in plan.runs)


def test_several_trainings_of_one_method():
    methods = [
        "maediff",
        "maediff:r=16,t_train=[40,71]@s=48",
        "maediff:r=16,t_train=[40,71]@s=16",
        "pddpm:train.flip=false",
    ]
    runs = plan_runs(methods, [0], BUDGET, {"t_train": [80, 111]}).runs
    assert [(run.name, run.test_settings) for run in runs] == [
        ("maediff-0", ("",)),
        ("maediff,r=16,t_train=[40,71]-0", ("s=48", "s=16")),
        ("pddpm,train.flip=false-0", ("",)),
    ]
    assert runs[0].settings == {"t_train": [80, 111], "train": {"steps": 4}}
    assert runs[1].settings == {"t_train": [40, 71], "r": 16, "train": {"steps": 4}}
    assert runs[2].settings == {"t_train": [80, 111], "train": {"flip": False, "steps": 4}}


def test_first_seed_of_all_methods_comes_first():
    plan = plan_runs(["ddpm", "pddpm"], [3, 1], BUDGET, method_seeds={"pddpm": [1, 7]})
    assert [run.name for run in plan.runs] == ["ddpm-3", "ddpm-1", "pddpm-1", "pddpm-7"]


def test_steps_of_a_method_override_those_of_the_budget():
    plan = plan_runs(["ddpm:train.steps=2", "pddpm"], [0], replace(BUDGET, steps=9))
    assert [run.settings["train"]["steps"] for run in plan.runs] == [2, 9]


@pytest.mark.parametrize(
    ("methods", "seeds", "message"),
    [
        (["gan"], [0], "unknown method 'gan'"),
        (["bright"], [0], "is not trained"),
        (["ddpm", "ddpm"], [0], "occurs twice"),
        (["ddpm"], [], r"`seeds=\[\]`: give each seed once"),
        (["ddpm"], [0, 0], r"`seeds=\[0, 0\]`: give each seed once"),
        (["ddpm"], [0, -1], r"`seeds=\[0, -1\]`: .* from 0 up"),
        (["pddpm@stride=3"], [0], "stride"),
        (["pddpm:p=99"], [0], "p=99"),
        (["maediff:r=16", "maediff:r=16"], [0], "occurs twice"),
        (["maediff:name=a/b"], [0], "in `settings`"),
        (["pddpm@t_test=5000"], [0], "5000"),
    ],
)
def test_invalid_methods_and_seeds_are_refused(methods, seeds, message):
    with pytest.raises(InputError, match=message):
        plan_runs(methods, seeds, BUDGET)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"settings": {"train": {"stepz": 1}}}, "stepz"),
        ({"settings": {"nonsense": 1}}, "nonsense"),
        ({"method_seeds": {"vae": [0]}}, "'vae' is not compared"),
        ({"method_seeds": {"maediff": [-1]}}, r"`method_seeds=\[-1\]`"),
    ],
)
def test_invalid_settings_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        plan_runs(["maediff"], [0], BUDGET, **arguments)


# ---- comparisons


class Records:
    """Calls of the replaced `train` and `evaluate`.

    `stop` holds the names of runs that are stopped half way.
    """

    def __init__(self):
        self.trained, self.scored, self.stop = [], [], []

    def train(self, name, _cohort, out, **arguments):
        self.trained.append((out.name, arguments["max_time"]))
        steps = arguments["settings"].get("train", {}).get("steps", 100)
        is_stopped = out.name in self.stop
        seconds = 30.0 if is_stopped else 60.0
        write_json(out / "provenance.json", {"wall_seconds": seconds})
        return {
            "step": steps // 2 if is_stopped or arguments["max_time"] else steps,
            "steps": steps,
            "seconds": seconds,
            "best_val_loss": 0.1,
        }

    def evaluate(self, references, _cohort, out, **arguments):
        self.scored.append((references, arguments))
        out.mkdir(exist_ok=True)
        (out / "table.md").write_text("the table")
        return {}


@pytest.fixture
def records(monkeypatch):
    records = Records()
    monkeypatch.setattr(module, "train", records.train)
    monkeypatch.setattr(module, "evaluate", records.evaluate)
    return records


def test_resumed_comparison_repeats_nothing(cohort, tmp_path, records):
    plan = plan_runs(["pddpm@s=48", "ddpm"], [0, 1], BUDGET)
    out = tmp_path / "out"
    records.stop.append("ddpm-0")
    with pytest.raises(KeyboardInterrupt):
        compare(plan, cohort, out, command=["maediff", "compare", "a b"], run=QUIET)
    assert [name for name, _ in records.trained] == ["pddpm-0", "ddpm-0"]
    assert not records.scored
    records.stop.clear()
    with pytest.raises(InputError, match="exists"):
        compare(plan, cohort, out, run=QUIET)
    compare(plan, cohort, out, command=["maediff", "--resume"], run=RESUME)
    assert [name for name, _ in records.trained[2:]] == ["ddpm-0", "pddpm-1", "ddpm-1"]
    references, arguments = records.scored[0]
    assert references == [
        f"{out}/runs/pddpm-0@s=48",
        f"{out}/runs/ddpm-0",
        f"{out}/runs/pddpm-1@s=48",
        f"{out}/runs/ddpm-1",
    ]
    assert arguments["run"].overwrite and not arguments["run"].resume
    notes = " ".join(arguments["notes"])
    for text in (
        "preset tiny, 4 steps of 8 slices",
        "4 runs, 4.0 minutes",
        "`maediff compare 'a b'`",
        "--resume",
    ):
        assert text in notes
    record = json.loads((out / "compare.json").read_text("utf-8"))
    assert record["budget"] == {"preset": "tiny", "steps": 4, "max_time": None}
    assert record["hardware"][0]["cores"] >= 1
    assert all(run["done"] for run in record["runs"].values())


@pytest.fixture
def finished(cohort, tmp_path, records):
    """A finished comparison of ddpm."""
    compare(plan_runs(["ddpm"], [0], BUDGET), cohort, tmp_path / "out", run=QUIET)
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (
            Plan(Budget("tiny", 5), plan_runs(["ddpm"], [0], BUDGET).runs),
            "was started with budget",
        ),
        (plan_runs(["ddpm"], [0], BUDGET, {"t_test": [60]}), "was trained with"),
    ],
)
def test_other_budget_or_settings_are_refused(cohort, finished, plan, message):
    with pytest.raises(InputError, match=message):
        compare(plan, cohort, finished, run=RESUME)


def test_method_can_be_added(cohort, finished, records):
    compare(plan_runs(["ddpm", "anoddpm"], [0], BUDGET), cohort, finished, run=RESUME)
    assert [name for name, _ in records.trained] == ["ddpm-0", "anoddpm-0"]


@pytest.mark.parametrize("changes", ["[]", "{}", {"runs": []}, {"commands": "x"}])
def test_damaged_record_is_refused(cohort, finished, changes):
    record = finished / "compare.json"
    if isinstance(changes, dict):
        changes = json.dumps(json.loads(record.read_text("utf-8")) | changes)
    record.write_text(changes)
    message = r"compare\.json: .*damaged.*; choose another output folder, or use `overwrite=True`"
    with pytest.raises(InputError, match=message):
        compare(plan_runs(["ddpm"], [0], BUDGET), cohort, finished, run=RESUME)


def test_time_budget_is_reduced_by_the_time_used(cohort, tmp_path, records, caplog, capsys):
    plan = plan_runs(["ddpm"], [0], Budget("tiny", max_time="1m"))
    records.stop.append("ddpm-0")
    with pytest.raises(KeyboardInterrupt):
        compare(plan, cohort, tmp_path / "out", run=QUIET)
    records.stop.clear()
    assert not caplog.records
    with caplog.at_level(logging.INFO, "maediff"):
        compare(plan, cohort, tmp_path / "out", run=RunOptions(resume=True))
    assert caplog.messages == ["1/1 ddpm-0"]
    assert capsys.readouterr() == ("", "")
    assert records.trained == [("ddpm-0", "60.000s"), ("ddpm-0", "30.000s")]
    assert "steps done: ddpm-0 50" in " ".join(records.scored[0][1]["notes"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"postprocess": {"medain_size": 1}}, "medain_size"),
        ({"postprocess": {"median_size": 2}}, "median_size"),
        ({"precision": "fp16"}, "fp16"),
        ({"score_split": "tset"}, "split 'tset': unknown"),
        ({"calibrate_split": "tset"}, "split 'tset': unknown"),
        ({"postprocess": {"symmetry": 0.5}}, "postprocess.symmetry 0.5 compares left and right"),
    ],
)
def test_invalid_scoring_is_refused_before_training(cohort, tmp_path, records, arguments, message):
    with pytest.raises(InputError, match=message):
        compare(plan_runs(["ddpm"], [0], BUDGET), cohort, tmp_path / "out", run=QUIET, **arguments)
    assert not records.trained
    assert not (tmp_path / "out").exists()


def test_seconds_used(tmp_path):
    assert seconds_used(tmp_path) == 0
    write_json(tmp_path / "provenance.json", {"wall_seconds": 3})
    assert seconds_used(tmp_path) == 3


@pytest.mark.slow
def test_complete_comparison(cohort, tmp_path):
    settings = {"unet": UNET, "train": {"batch_size": 2, "checkpoint_every": 2}}
    plan = plan_runs(
        ["pddpm@s=48", "pddpm:t_train=[40,71]@s=48", "ddpm"], [0, 1], Budget("tiny", 2), settings
    )
    out = tmp_path / "out"
    summary = compare(plan, cohort, out, run=QUIET)
    default, changed = (f"pddpm t_train={t}" for t in ("[80,111]", "[40,71]"))
    assert summary["groups"][default]["runs"] == ["pddpm-0@s=48", "pddpm-1@s=48"]
    assert summary["groups"][changed]["runs"] == [
        f"pddpm,t_train=[40,71]-{seed}@s=48" for seed in (0, 1)
    ]
    assert summary["groups"]["ddpm"]["seeds"] == [0, 1]
    text = (out / "eval" / "table.md").read_text("utf-8")
    assert "2 steps of 2 slices" in text
    assert f"| {default} - ddpm |" in text
    weights = out / "runs" / "ddpm-1" / "last" / "model.safetensors"
    written = weights.stat().st_mtime_ns
    again = compare(plan, cohort, out, run=RESUME)
    assert again["methods"] == summary["methods"]
    assert weights.stat().st_mtime_ns == written
