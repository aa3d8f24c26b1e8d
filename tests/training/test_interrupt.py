"""Ctrl-C in training: the first stops after the step, the second at once."""

import signal

import pytest

from helpers.training import assert_same, run, weights
from maediff.core.processes import process
from maediff.core.processes.process import STOPS, stops_as_interrupt
from maediff.models.model import read_model
from maediff.models.weights import read_weights
from maediff.training import interrupt, loop
from maediff.training.interrupt import deferred_interrupt


@pytest.fixture
def press(monkeypatch):
    """List of steps; Ctrl-C is pressed in the middle of each, once per entry."""
    steps, update_ema = [], loop.update_ema

    def pressed(ema, method, decay, step):
        for _ in range(steps.count(step)):
            signal.raise_signal(signal.SIGINT)
        update_ema(ema, method, decay, step)

    monkeypatch.setattr(loop, "update_ema", pressed)
    # A background job of a shell ignores Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield steps
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("step", [0, 2])
def test_first_ctrl_c_finishes_the_step_and_resume_continues_there(
    cohort, whole, tmp_path, press, caplog, step
):
    press.append(step)
    assert run(cohort, tmp_path / "parts")["step"] == step + 1  # checkpoints are due at 2, 4 and 6
    assert f"saving step {step + 1}" in caplog.text
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    press.clear()
    assert run(cohort, tmp_path / "parts", resume=True)["step"] == 6
    assert_same(weights(whole), weights(tmp_path / "parts"))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (0, "stopped at once, before the first checkpoint: nothing was saved"),
        (3, "stopped at once; the last checkpoint is of step 2"),
    ],
)
def test_second_ctrl_c_stops_at_once_and_names_the_last_checkpoint(
    cohort, whole, tmp_path, press, caplog, step, message
):
    press.extend([step, step])
    with pytest.raises(KeyboardInterrupt):
        run(cohort, tmp_path / "parts")
    assert message in caplog.text
    assert (tmp_path / "parts" / "last").exists() == (step > 2)
    press.clear()
    assert run(cohort, tmp_path / "parts", resume=True)["step"] == 6
    assert_same(weights(whole), weights(tmp_path / "parts"))


def test_interruption_does_not_change_the_best_checkpoint(cohort, tmp_path, press, monkeypatch):
    """Checkpoints are due at 2, 4 and 6. The run is stopped at 3, where its loss is lowest."""
    measured = iter([0.3, 0.1, 0.2, 0.25])  # at 2, 3, 4 and 6
    monkeypatch.setattr(loop, "validation_loss", lambda *_: next(measured))
    press.append(2)
    assert run(cohort, tmp_path / "run")["best_val_loss"] == 0.1
    assert read_model(tmp_path / "run").step == 3  # until the run is resumed
    press.clear()
    assert run(cohort, tmp_path / "run", resume=True)["best_val_loss"] == 0.2
    assert read_model(tmp_path / "run").step == 4


def test_ctrl_c_in_the_last_step_is_not_lost(cohort, tmp_path, press):
    """`maediff compare` would start the next training otherwise."""
    press.append(5)
    with pytest.raises(KeyboardInterrupt):
        run(cohort, tmp_path / "run")
    assert read_weights(tmp_path / "run" / "last" / "model.safetensors", "ema.", "maediff")[1] == 6


def test_another_handler_of_sigint_is_kept():
    def handle(*_):
        handled.append(True)

    handled = []
    before = signal.signal(signal.SIGINT, handle)
    try:
        with deferred_interrupt() as interrupt:
            signal.raise_signal(signal.SIGINT)
        assert handled == [True]
        assert not interrupt.is_set()
        assert signal.getsignal(signal.SIGINT) is handle
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", STOPS)
@pytest.mark.parametrize("ctrl_c_is_ignored", [False, True])
def test_a_stop_comes_after_the_step(
    cohort, whole, tmp_path, monkeypatch, number, ctrl_c_is_ignored
):
    """A scheduler or a closed terminal; the shell of a background job ignores Ctrl-C."""
    monkeypatch.setattr(interrupt, "leave_closed_terminal", lambda _: None)  # of this test
    update_ema, steps = loop.update_ema, []

    def terminate(ema, method, decay, step):
        if step == 2:
            signal.raise_signal(number)
        steps.append(step)
        update_ema(ema, method, decay, step)

    monkeypatch.setattr(loop, "update_ema", terminate)
    handler = signal.SIG_IGN if ctrl_c_is_ignored else signal.default_int_handler
    before = signal.signal(signal.SIGINT, handler)
    stop_before = signal.signal(number, signal.SIG_DFL)  # the tests may run under nohup
    try:
        with stops_as_interrupt():
            assert run(cohort, tmp_path / "parts")["step"] == 3
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(number, stop_before)
    assert steps == [0, 1, 2]
    monkeypatch.undo()
    assert run(cohort, tmp_path / "parts", resume=True)["step"] == 6
    assert_same(weights(whole), weights(tmp_path / "parts"))


def test_a_second_sighup_does_not_cut_the_saving(monkeypatch):
    monkeypatch.setattr(process.stat, "S_ISCHR", lambda _: False)  # the terminal of this test
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with stops_as_interrupt(), deferred_interrupt() as requested:
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGHUP)
            assert requested.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)
