"""A schedule takes the same course in the run, from ``tuner.best`` and from the export.

However a loop steps it: every loop here is written once, and run with what each of the three
gives it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tuner
from tests.conftest import MakeSpec
from tests.report.test_code import run_exported
from tests.service.worker.contexts import Bureau
from tuner.report.code import to_python
from tuner.service.summaries import read_summary
from tuner.store import Database
from tuner.training.run import Run

MakeBureau = Callable[..., Bureau]

STEPS, EPOCH = 24, 6


class Tools:
    """What a loop needs: optimizers, their schedules, and its steps."""

    def __init__(self, optimizer: Any, schedule: Any, steps: Any) -> None:
        self._optimizer, self._schedule = optimizer, schedule
        self.steps: Callable[[], Iterator[int]] = steps
        self.seen: list[list[tuple[float, Any]]] = []

    def build(self) -> tuple[Callable[[], None], Any]:
        """Returns what takes a step of a new optimizer, noting its rate, and its schedule."""
        model = nn.Linear(2, 1)
        optimizer = self._optimizer(model)
        schedule = self._schedule(optimizer)
        rates: list[tuple[float, Any]] = []
        self.seen.append(rates)

        def step() -> None:
            group = optimizer.param_groups[0]
            rates.append((group["lr"], group.get("momentum")))
            optimizer.zero_grad()
            model(torch.ones(4, 2)).square().sum().backward()
            optimizer.step()

        return step, schedule


def by_step(tools: Tools) -> None:
    step, schedule = tools.build()
    for _ in tools.steps():
        step()
        schedule.step()


def by_epoch(tools: Tools) -> None:
    step, schedule = tools.build()
    for number in tools.steps():
        step()
        if (number + 1) % EPOCH == 0:
            schedule.step()


def by_uneven_epoch(tools: Tools) -> None:
    """Steps that epochs do not divide: a last call comes early."""
    step, schedule = tools.build()
    for number in tools.steps():
        step()
        if (number + 1) % 7 == 0 or number == STEPS - 1:
            schedule.step()


def nested(tools: Tools) -> None:
    step, schedule = tools.build()
    for _ in range(STEPS // EPOCH):
        for _ in range(EPOCH):
            step()
        schedule.step()


def adversarial(tools: Tools) -> None:
    """One of two optimizers steps three times a turn."""
    (judge, judge_schedule), (maker, maker_schedule) = tools.build(), tools.build()
    for _ in tools.steps():
        for _ in range(3):
            judge()
        maker()
        judge_schedule.step()
        maker_schedule.step()


def nested_adversarial(tools: Tools) -> None:
    """The same in a loop that counts its steps itself."""
    (judge, judge_schedule), (maker, maker_schedule) = tools.build(), tools.build()
    for _ in range(STEPS // 3):
        for _ in range(3):
            judge()
        maker()
        judge_schedule.step()
        maker_schedule.step()


def accumulating(tools: Tools) -> None:
    step, schedule = tools.build()
    for number in tools.steps():
        if (number + 1) % 4 == 0:
            step()
            schedule.step()


def accumulating_by_turn(tools: Tools) -> None:
    """Moves its schedule on with each part of a batch."""
    step, schedule = tools.build()
    for number in tools.steps():
        if (number + 1) % 4 == 0:
            step()
        schedule.step()


def unstepped(tools: Tools) -> None:
    step, _ = tools.build()
    for _ in tools.steps():
        step()


@pytest.fixture
def make_bureau(database: Database, make_spec: MakeSpec, tmp_path: Path) -> MakeBureau:
    return lambda **tables: Bureau(database, make_spec, tmp_path, **tables)


LOOPS = [
    by_step,
    by_epoch,
    by_uneven_epoch,
    nested,
    adversarial,
    nested_adversarial,
    accumulating,
    accumulating_by_turn,
    unstepped,
]


def train(bureau: Bureau, loop: Callable[[Tools], None]) -> list[Any]:
    """Returns what every optimizer stepped with in a trial."""
    seen: list[Any] = []

    def own(run: Run) -> float:
        run.measure(EPOCH)
        tools = Tools(run.optimizer, run.schedule, run.steps)
        seen.append(tools.seen)
        loop(tools)
        return 0.5

    assert bureau.train(own).value == 0.5
    return seen[0]  # type: ignore[no-any-return]


def from_best(bureau: Bureau, loop: Callable[[Tools], None]) -> list[Any]:
    winner = tuner.best("small", bureau.database.url)
    tools = Tools(winner.optimizer, winner.schedule, lambda: iter(range(STEPS)))
    loop(tools)
    return tools.seen


def from_export(bureau: Bureau, loop: Callable[[Tools], None], folder: Path) -> list[Any]:
    summary = read_summary(bureau.database, bureau.study)
    assert summary.best is not None
    exported = run_exported(to_python(summary), folder)
    calls = [call["steps"] for call in summary.best.schedule_calls or ()]
    places = itertools.count()

    def schedule(optimizer: torch.optim.Optimizer) -> Any:
        several = len(set(calls)) > 1
        further = (calls[next(places)],) if several else ()
        return exported["build_schedule"](optimizer, *further)

    tools = Tools(exported["build_optimizer"], schedule, lambda: iter(range(STEPS)))
    loop(tools)
    return tools.seen


# Torch's word on a schedule that moves on between an optimizer's steps.
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("schedule", ["cosine", "step", "one_cycle"])
def test_a_schedule_takes_its_course_again(
    make_bureau: MakeBureau, tmp_path: Path, schedule: str, loop: Callable[[Tools], None]
) -> None:
    bureau = make_bureau(
        budget={"steps": STEPS, "trials": 1},
        space={"optimizers": ["momentum"], "schedules": [schedule]},
    )
    trained = train(bureau, loop)
    assert from_best(bureau, loop) == trained
    assert from_export(bureau, loop, tmp_path) == trained
    rates = {rate for rate, _ in trained[0]}
    assert (len(rates) == 1) == (loop is unstepped)


@pytest.mark.parametrize("loop", [by_step, by_epoch, nested, by_uneven_epoch])
def test_so_does_one_that_changes_by_epoch(
    make_bureau: MakeBureau, tmp_path: Path, loop: Callable[[Tools], None]
) -> None:
    bureau = make_bureau(
        budget={"steps": STEPS, "trials": 1},
        space={"optimizers": ["momentum"], "schedules": ["linear"]},
        train={"schedule_by": "epoch", "batch_size": 32},
    )
    trained = train(bureau, loop)
    assert from_best(bureau, loop) == trained
    if loop is not by_step:  # the export is then to be stepped by epoch, as it says
        assert from_export(bureau, loop, tmp_path) == trained


def test_the_best_is_right_whichever_way_it_is_stepped(make_bureau: MakeBureau) -> None:
    bureau = make_bureau(
        budget={"steps": STEPS, "trials": 1},
        space={"optimizers": ["momentum"], "schedules": ["linear"]},
    )
    [trained] = train(bureau, by_step)
    [by_epochs] = from_best(bureau, by_epoch)
    assert by_epochs == [trained[step // EPOCH * EPOCH] for step in range(STEPS)]


def test_a_loop_without_a_schedule_trained_at_a_constant_rate(
    make_bureau: MakeBureau, tmp_path: Path
) -> None:
    def loop(run: Run) -> float:
        optimizer = run.optimizer(nn.Linear(2, 1))
        for _ in run.steps():
            optimizer.step()
        return 0.5

    bureau = make_bureau(
        budget={"steps": STEPS, "trials": 1},
        space={"optimizers": ["momentum"], "schedules": ["cosine"]},
    )
    bureau.train(loop)
    for seen in (from_best(bureau, by_step), from_export(bureau, by_step, tmp_path)):
        assert len({rate for rate, _ in seen[0]}) == 1
    summary = read_summary(bureau.database, bureau.study)
    assert "took no schedule from its run" in to_python(summary)


@pytest.mark.parametrize("step", [5, 13])
def test_how_a_loop_steps_its_schedule_is_known_after_an_interruption(
    make_bureau: MakeBureau, step: int
) -> None:
    def run_by(loop: Callable[[Tools], None]) -> Callable[[Run], float]:
        def own(run: Run) -> float:
            loop(Tools(run.optimizer, run.schedule, run.steps))
            return 0.5

        return own

    for loop in (by_epoch, adversarial, accumulating, accumulating_by_turn):
        study = {"name": loop.__name__, "workload": "models.parabola:Parabola"}
        bureau = make_bureau(budget={"steps": STEPS, "trials": 3}, study=study)
        whole = bureau.train(run_by(loop)).attributes["schedule_calls"]
        bureau.train(run_by(loop), stop_after=step)
        assert bureau.train(run_by(loop)).attributes["schedule_calls"] == whole
