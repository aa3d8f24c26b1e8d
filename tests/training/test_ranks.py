"""Training on several ranks equals training in one process with the same global batch."""

import csv
import gc
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from helpers.methods import make
from helpers.training import FAST, weights
from maediff.core.errors import InputError
from maediff.core.options import RunOptions
from maediff.methods.registry import TRAINED
from maediff.training.launch import run_ranks
from maediff.training.ranks import (
    ALONE,
    Ranks,
    RowDraws,
    check_batch_size,
    find_launcher,
    rank_of,
)
from maediff.training.train import train

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "RANK": "3"}
SLURM = {"SLURM_NTASKS": "4", "SLURM_PROCID": "2"}
ROBUST = {**FAST, "train": {**FAST["train"], "augment": "robust", "fabricate": {"share": 0.5}}}
LOSS_TOLERANCE, WEIGHT_TOLERANCE = 2e-5, 2e-4
"""Largest differences: the ranks sum in another order than one process.

Adam divides a gradient by its size, so the rounding of a tiny gradient can move a weight by a part
of the learning rate, which is 1e-3 here; six steps move a weight by up to 6e-3.
"""


def test_rows_of_all_ranks_make_the_batch():
    batch = torch.arange(12)
    parts = [batch[Ranks(rank, 3).rows(12)] for rank in range(3)]
    assert [part.tolist() for part in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


@pytest.mark.parametrize("name", TRAINED)
def test_losses_of_the_rows_are_the_loss_of_the_batch(name):
    method = make(name)
    x = torch.rand(4, 1, 48, 48, generator=torch.Generator().manual_seed(1))
    seen = (x + 0.1).clamp(0, 1)
    for objective in method.objectives():

        def gradients(losses, objective=objective):
            method.zero_grad()
            (sum(losses) / len(losses)).backward()
            return [parameter.grad.clone() for parameter in objective.parameters]

        whole = objective.loss(x, torch.Generator().manual_seed(5), seen)
        expected = gradients([whole])
        parts = []
        for rank in range(2):
            rows = Ranks(rank, 2).rows(4)
            generator = torch.Generator().manual_seed(5)
            with RowDraws(generator, 4, rows):
                parts.append(objective.loss(x[rows], generator, seen[rows]))
        torch.testing.assert_close(sum(parts) / 2, whole, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(gradients(parts), expected, atol=1e-4, rtol=1e-3)


def test_row_draws():
    generator, other = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)
    whole = [torch.rand(6, 2, generator=generator), torch.randint(3, (6,), generator=generator)]
    free = torch.rand(5, generator=other)
    generator.manual_seed(0)
    other.manual_seed(1)
    with RowDraws(generator, 6, slice(2, 4)):
        rows = [torch.rand(2, 2, generator=generator), torch.randint(3, (2,), generator=generator)]
        assert torch.equal(torch.rand(5, generator=other), free)
        with pytest.raises(AssertionError, match="draws"):
            torch.rand(5, generator=generator)
    assert all(torch.equal(part, full[2:4]) for part, full in zip(rows, whole, strict=True))


@pytest.mark.parametrize(
    ("devices", "nodes", "environment", "launcher"),
    [
        (1, 1, {}, "none"),
        (2, 1, {}, "maediff"),
        (2, 2, TORCHRUN, "torchrun"),
        (2, 2, SLURM, "slurm"),
        (1, 1, SLURM, "none"),  # `srun -n 4` of something else
        (2, 1, {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, "maediff"),
    ],
)
def test_the_launcher_is_found_in_the_environment(devices, nodes, environment, launcher):
    assert find_launcher(devices, nodes, environment) == launcher


def test_ranks_of_launchers():
    assert rank_of("torchrun", TORCHRUN) == Ranks(3, 4)
    assert rank_of("slurm", SLURM) == Ranks(2, 4)
    assert rank_of("none", {}) == ALONE


@pytest.mark.parametrize(
    ("devices", "nodes", "environment", "message"),
    [
        (2, 1, TORCHRUN, "torchrun started 4 processes, but `devices=2`"),
        (1, 1, TORCHRUN, "torchrun started 4 processes, but `devices=1`"),
        (2, 2, {}, "make 4 processes, but no launcher was found"),
        (3, 1, SLURM, "make 3 processes, but SLURM started 4 tasks"),
    ],
)
def test_launcher_with_another_number_of_processes(devices, nodes, environment, message):
    with pytest.raises(InputError, match=message):
        find_launcher(devices, nodes, environment)


def test_batch_that_does_not_divide():
    check_batch_size(32, 4, 2)
    with pytest.raises(InputError, match=r"train.batch_size=32 .* 3 devices; .*=30 or 33"):
        check_batch_size(32, 3, 1)
    with pytest.raises(InputError, match=r"use train.batch_size=3$"):
        check_batch_size(2, 3, 1)


def train_small(cohort, out, *, devices=1, resume=False, method="maediff", **changes):
    options = RunOptions(device="cpu", quiet=True, resume=resume, devices=devices)
    settings = {"settings": ROBUST, **changes}
    return train(method, cohort, out, preset="tiny", run=options, **settings)


def read_losses(out):
    with (out / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [[float(row[key]) for key in ("step", "train_loss", "val_loss")] for row in rows]


@pytest.fixture(scope="module")
def alone(cohort, tmp_path_factory):
    """A run of one process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    train_small(cohort, out)
    return out


def assert_close(out, alone):
    torch.testing.assert_close(
        torch.tensor(read_losses(out)),
        torch.tensor(read_losses(alone)),
        atol=LOSS_TOLERANCE,
        rtol=0,
    )
    torch.testing.assert_close(weights(out), weights(alone), atol=WEIGHT_TOLERANCE, rtol=0)


def test_two_ranks_equal_one_process(cohort, alone, tmp_path):
    out = tmp_path / "two"
    result = train_small(cohort, out, devices=2)
    assert result["step"] == 6 and "rank" not in result
    assert_close(out, alone)
    names = [{path.relative_to(run) for path in run.rglob("*")} for run in (out, alone)]
    assert names[0] == names[1]  # calibrated too, and no file of rank 1


def test_resume_with_another_number_of_devices(cohort, alone, tmp_path):
    out = tmp_path / "run"
    assert train_small(cohort, out, devices=2, max_time="0s")["step"] == 1
    assert train_small(cohort, out, max_time="0s", resume=True)["step"] == 2
    assert train_small(cohort, out, devices=2, resume=True)["step"] == 6
    # A stopped run has further rows in its table.
    torch.testing.assert_close(weights(out), weights(alone), atol=WEIGHT_TOLERANCE, rtol=0)


def train_and_look_for_ddp(cohort, out):
    """Train a rank; fail if DDP is alive when the group ends."""
    end_group = distributed.destroy_process_group

    def look_and_end():
        objects = gc.get_objects()
        assert not any(type(each) is DistributedDataParallel for each in objects)
        end_group()

    distributed.destroy_process_group = look_and_end  # in a process of its own
    return train_small(cohort, out, devices=2)


def test_ddp_ends_before_the_group(cohort, tmp_path):
    """The other order deadlocks now and then: DDP would wait for the group with the GIL."""
    arguments = {"cohort": cohort, "out": tmp_path / "run"}
    assert run_ranks(train_and_look_for_ddp, arguments, 2)["step"] == 6


def test_existing_folder_is_refused_by_the_first_rank(cohort, alone):
    before = sorted(alone.rglob("*"))
    with pytest.raises(InputError, match="exists and is not empty"):
        train_small(cohort, alone, devices=2)
    assert sorted(alone.rglob("*")) == before


def fail_on(rank, how):
    """Fail in one rank; the other ranks wait."""
    if int(os.environ["RANK"]) == rank:
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise InputError("a message") if how == "input" else ValueError("a bug")
    time.sleep(0.5)
    return "result"


@pytest.mark.parametrize(
    ("rank", "how", "error", "message"),
    [
        (1, "kill", InputError, r"rank 1 of 2 died \(killed by SIGKILL.*`resume=True`"),
        (1, "input", InputError, "^a message$"),
        (1, "bug", RuntimeError, r"rank 1: (?s:.*)ValueError: a bug"),
    ],
)
def test_rank_that_dies_is_named(rank, how, error, message):
    with pytest.raises(error, match=message):
        run_ranks(fail_on, {"rank": rank, "how": how}, 2)


@pytest.mark.slow
def test_rank_that_dies_under_a_launcher_is_named_and_resume_continues(cohort, tmp_path):
    """Two processes with torchrun's variables; rank 1 is killed in the middle."""
    settings = {**ROBUST, "train": {**ROBUST["train"], "steps": 400, "checkpoint_every": 5}}
    (tmp_path / "settings.yaml").write_text(json.dumps(settings))
    out = tmp_path / "run"
    command = [sys.executable, "-m", "maediff", "train", "maediff", "--preset", "tiny"]
    command += ["--cohort", str(cohort), "-o", str(out), "--device", "cpu", "-q"]
    command += ["--config", str(tmp_path / "settings.yaml"), "--devices", "2"]
    variables = {"WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "x", "MASTER_ADDR": "127.0.0.1"}
    variables |= {"MASTER_PORT": "29517", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **variables, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )
        for rank in range(2)
    ]
    while not (out / "metrics.csv").is_file() and processes[0].poll() is None:
        time.sleep(0.1)
    processes[1].kill()
    message = processes[0].communicate(timeout=120)[1]
    processes[1].communicate(timeout=30)
    assert processes[0].returncode == 2
    assert "rank 1 did not answer" in message and "--resume" in message
    step = int(read_losses(out)[-1][0])
    assert 0 < step < 400
    result = train_small(cohort, out, resume=True, settings=settings, max_time="0s")
    assert result["step"] == step + 1
