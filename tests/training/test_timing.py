from __future__ import annotations

from typing import Any

import pytest
import torch

from tuner.training.timing import Timing


class Machine:
    """A clock, and a device that has work to do for some seconds."""

    def __init__(self) -> None:
        self.now = self.queue = 0.0

    def wait(self, device: torch.device) -> None:
        self.now, self.queue = self.now + self.queue, 0.0


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr("tuner.training.timing.wait_for", machine.wait)
    monkeypatch.setattr("time.perf_counter", lambda: machine.now)
    return machine


def test_what_a_device_has_yet_to_train_is_no_evaluation(machine: Machine) -> None:
    timing = Timing()
    timing.begin(torch.device("cpu"))
    machine.now, machine.queue = 1.0, 4.0
    with timing.evaluation():
        machine.now, machine.queue = machine.now + 2.0, 8.0
    assert (timing.train_s, timing.eval_s) == (5.0, 10.0)
    timing.mark()
    assert timing.train_s == 5.0


def test_waiting_counts_as_training(machine: Machine) -> None:
    timing = Timing()
    timing.begin(torch.device("cpu"))
    machine.now, machine.queue = 1.0, 4.0
    timing.mark()
    assert timing.train_s == 1.0
    timing.wait()
    assert timing.train_s == 5.0


def test_marks_within_an_evaluation_count_nothing(machine: Machine) -> None:
    timing = Timing()
    timing.begin(torch.device("cpu"))
    with timing.evaluation():
        machine.now += 2.0
        timing.wait()
        machine.now += 1.0
    machine.now += 4.0
    timing.mark()
    assert (timing.train_s, timing.eval_s) == (4.0, 3.0)


def test_an_evaluation_outside_training_is_counted_by_itself(machine: Machine) -> None:
    timing = Timing()
    with timing.evaluation():
        machine.now += 3.0
    assert timing.state_dict() == {"train_s": 0.0, "eval_s": 3.0}


def test_seconds_go_on_from_a_checkpoint() -> None:
    state: dict[str, Any] = Timing(2.0, 3.0).state_dict()
    assert Timing(**state) == Timing(2.0, 3.0)
