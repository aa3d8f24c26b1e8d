"""One command, one table: what is planned, what is refused, and that nothing done is done twice."""

import importlib
import json

import pytest

import maediff.evaluation.compare as module
from helpers.brains import made_cohort
from maediff.core.errors import InputError
from maediff.core.files import write_json
from maediff.evaluation.compare import Budget, compare, plan

BUDGET = Budget("tiny", 4, None)
UNET = {"channels": [8, 16], "blocks": 1, "attention": False, "stem": 2}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return made_cohort(tmp_path_factory.mktemp("compare"))


def test_one_training_serves_several_settings_at_test():
    planned = plan(
        ["maediff", "pddpm@s=48", "pddpm@s=16"], [0, 1], BUDGET, method_seeds={"pddpm": [1]}
    )
    assert [(p.name, p.at_test) for p in planned] == [
        ("maediff-0", ("",)),
        ("maediff-1", ("",)),
        ("pddpm-1", ("s=48", "s=16")),
    ]
    assert all(p.settings == {"train": {"steps": 4}} for p in planned)


def test_one_method_is_trained_with_several_settings():
    asked = [
        "maediff",
        "maediff:r=16,t_train=[40,71]@s=48",
        "maediff:r=16,t_train=[40,71]@s=16",
        "pddpm:train.flip=false",
    ]
    planned = plan(asked, [0], BUDGET, {"t_train": [80, 111]})
    assert [(p.name, p.at_test) for p in planned] == [
        ("maediff-0", ("",)),
        ("maediff,r=16,t_train=[40,71]-0", ("s=48", "s=16")),
        ("pddpm,train.flip=false-0", ("",)),
    ]
    assert planned[0].settings == {"t_train": [80, 111], "train": {"steps": 4}}
    assert planned[1].settings == {"t_train": [40, 71], "r": 16, "train": {"steps": 4}}
    assert planned[2].settings == {"t_train": [80, 111], "train": {"flip": False, "steps": 4}}


def test_what_cannot_be_compared_is_refused_before_anything_is_trained():
    for arguments, said in [
        ((["gan"], [0]), "'gan' is not known"),
        ((["bright"], [0]), "learns nothing"),
        ((["ddpm", "ddpm"], [0]), "given twice"),
        ((["ddpm"], []), "none"),
        ((["ddpm"], [0, 0]), "each seed once"),
        ((["ddpm"], [0, -1]), "seeds 0, -1 of ddpm: give whole numbers from 0 up"),
        ((["pddpm@stride=3"], [0]), "stride"),
        ((["pddpm:p=99"], [0]), "p=99"),
        ((["maediff:r=16", "maediff:r=16"], [0]), "given twice"),
        ((["maediff:name=a/b"], [0]), "by --set"),
        ((["pddpm@t_test=5000"], [0]), "5000"),
    ]:
        with pytest.raises(InputError, match=said):
            plan(*arguments, BUDGET)
    for wrong, said in [
        ({"settings": {"train": {"stepz": 1}}}, "stepz"),
        ({"settings": {"nonsense": 1}}, "nonsense"),
        ({"method_seeds": {"vae": [0]}}, "'vae'"),
    ]:
        with pytest.raises(InputError, match=said):
            plan(["maediff"], [0], BUDGET, **wrong)


@pytest.fixture
def pretend(monkeypatch):
    """Trainings and evaluations that only keep books; `stop` holds names of runs that are stopped at half."""
    trained, scored, stop = [], [], []

    def train(name, _cohort, out, **kwargs):
        trained.append((out.name, kwargs["max_time"]))
        steps = kwargs["settings"].get("train", {}).get("steps", 100)
        halted = out.name in stop
        seconds = 30.0 if halted else 60.0
        write_json(out / "provenance.json", {"wall_seconds": seconds})
        return {
            "step": steps // 2 if halted or kwargs["max_time"] else steps,
            "steps": steps,
            "seconds": seconds,
            "best_val_loss": 0.1,
        }

    def evaluate(references, _cohort, out, **kwargs):
        scored.append((references, kwargs))
        out.mkdir(exist_ok=True)
        (out / "table.md").write_text("the table")
        return {}

    monkeypatch.setattr(module, "train", train)
    monkeypatch.setattr(module, "evaluate", evaluate)
    return trained, scored, stop


def test_stopped_and_resumed_without_doing_anything_twice(cohort, tmp_path, pretend):
    trained, scored, stop = pretend
    planned, budget = plan(["pddpm@s=48", "ddpm"], [0, 1], BUDGET), BUDGET
    stop.append("ddpm-0")
    with pytest.raises(KeyboardInterrupt):
        compare(
            planned,
            budget,
            cohort,
            tmp_path / "out",
            command=["maediff", "compare", "a b"],
            quiet=True,
        )
    assert [name for name, _ in trained] == ["pddpm-0", "ddpm-0"]
    assert not scored
    stop.clear()
    with pytest.raises(InputError, match="exists"):
        compare(planned, budget, cohort, tmp_path / "out", quiet=True)
    compare(
        planned,
        budget,
        cohort,
        tmp_path / "out",
        resume=True,
        command=["maediff", "--resume"],
        quiet=True,
    )
    assert [name for name, _ in trained[2:]] == ["ddpm-0", "pddpm-1", "ddpm-1"]
    references, how = scored[0]
    runs = tmp_path / "out" / "runs"
    assert references == [
        f"{runs}/pddpm-0@s=48",
        f"{runs}/ddpm-0",
        f"{runs}/pddpm-1@s=48",
        f"{runs}/ddpm-1",
    ]
    text = " ".join(how["notes"])
    for said in (
        "preset tiny, 4 steps of 8 slices",
        "4 runs, 4.0 minutes",
        "`maediff compare 'a b'`",
        "--resume",
    ):
        assert said in text
    record = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert record["budget"] == {"preset": "tiny", "steps": 4, "max_time": None}
    assert record["hardware"][0]["cores"] >= 1
    assert all(run["done"] for run in record["runs"].values())
    for change, said in [
        ((planned, Budget("tiny", 5, None)), "budget"),
        ((plan(["ddpm"], [0], BUDGET, {"t_test": [60]}), budget), "trained with"),
    ]:
        with pytest.raises(InputError, match=said):
            compare(*change, cohort, tmp_path / "out", resume=True, quiet=True)
    grown = plan(["ddpm", "anoddpm"], [0], BUDGET)
    compare(grown, budget, cohort, tmp_path / "out", resume=True, quiet=True)
    assert trained[-1][0] == "anoddpm-0"
    assert len(trained) == 6
    for content in ("[]", "{}", record | {"runs": []}, record | {"commands": "x"}):
        (tmp_path / "out" / "compare.json").write_text(
            content if isinstance(content, str) else json.dumps(content)
        )
        with pytest.raises(
            InputError, match=r"compare\.json: .*damaged.*; choose another OUT or add --overwrite"
        ):
            compare(grown, budget, cohort, tmp_path / "out", resume=True, quiet=True)


def test_a_budget_of_time_is_what_is_left_of_it(cohort, tmp_path, pretend, capsys):
    trained, scored, stop = pretend
    budget = Budget("tiny", None, "1m")
    planned = plan(["ddpm"], [0], budget)
    stop.append("ddpm-0")
    with pytest.raises(KeyboardInterrupt):
        compare(planned, budget, cohort, tmp_path / "out", quiet=True)
    stop.clear()
    compare(planned, budget, cohort, tmp_path / "out", resume=True)
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("1/1 ddpm-0")
    assert trained == [("ddpm-0", "60.000s"), ("ddpm-0", "30.000s")]
    assert "steps done: ddpm-0 50" in " ".join(scored[0][1]["notes"])


def test_the_post_processing_is_set_as_for_evaluate(
    cohort, tmp_path, pretend, monkeypatch, capsys
):
    scores = importlib.import_module("maediff.cli.compare")

    monkeypatch.setattr(scores, "print_report", lambda _: None)
    trained, scored, _ = pretend
    own = [
        "postprocess.median_size=1",
        "evaluate.postprocess.symmetry=0.5",
        "evaluate.fpr=0.02",
        "t_test=60",
    ]
    scores.compare(["ddpm"], cohort, tmp_path / "out", steps=4, seeds="0", set_=own, quiet=True)
    _, how = scored[0]
    assert how["post"] == {"median_size": 1, "symmetry": 0.5}
    assert how["config"].fpr == 0.02
    assert (
        json.loads((tmp_path / "out" / "compare.json").read_text())["runs"]["ddpm-0"]["settings"][
            "t_test"
        ]
        == 60
    )
    assert "the table" in capsys.readouterr().out
    before = len(trained)
    for wrong in ("postprocess.medain_size=1", "evaluate.postprocess.median_size=0.5"):
        with pytest.raises(InputError, match=r"medain_size|median_size|postprocess"):
            scores.compare(["ddpm"], cohort, tmp_path / "wrong", steps=4, set_=[wrong], quiet=True)
    assert len(trained) == before


@pytest.mark.slow
def test_the_whole_way(cohort, tmp_path):
    settings = {"unet": UNET, "train": {"batch_size": 2, "checkpoint_every": 2}}
    planned = plan(
        ["pddpm@s=48", "pddpm:t_train=[40,71]@s=48", "ddpm"],
        [0, 1],
        Budget("tiny", 2, None),
        settings,
    )
    summary = compare(planned, Budget("tiny", 2, None), cohort, tmp_path / "out", quiet=True)
    plain, less = (f"pddpm t_train={t}" for t in ("[80,111]", "[40,71]"))
    assert summary["groups"][plain]["runs"] == ["pddpm-0@s=48", "pddpm-1@s=48"]
    assert summary["groups"][less]["runs"] == [
        f"pddpm,t_train=[40,71]-{seed}@s=48" for seed in (0, 1)
    ]
    assert summary["groups"]["ddpm"]["seeds"] == [0, 1]
    text = (tmp_path / "out" / "eval" / "table.md").read_text()
    assert "2 steps of 2 slices" in text
    assert f"| {plain} - ddpm |" in text
    before = (
        (tmp_path / "out" / "runs" / "ddpm-1" / "last" / "model.safetensors").stat().st_mtime_ns
    )
    again = compare(
        planned, Budget("tiny", 2, None), cohort, tmp_path / "out", resume=True, quiet=True
    )
    assert again["methods"] == summary["methods"]
    assert (
        tmp_path / "out" / "runs" / "ddpm-1" / "last" / "model.safetensors"
    ).stat().st_mtime_ns == before
