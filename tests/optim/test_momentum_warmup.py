"""Momentum that rises to its own value, over any schedule that leaves it alone."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from torch import nn

from tests.training.trials import (
    Droopy,
    check_continued,
    make_config,
    make_spec,
    prepare_workload,
    stop_and_go,
    train,
)
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.schedules import SCHEDULES
from tuner.domain.groups import GroupValues
from tuner.errors import SpecError
from tuner.optim import build_optimizer, build_schedule
from tuner.training.run import Run

STEPS = 40


def momenta(
    name: str, warmup: float, schedule: str = "cosine", groups: Any = (), **values: Any
) -> list[list[float]]:
    """Returns the momentum or beta1 of every group at every step."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    optimizer = build_optimizer(name, OPTIMIZERS[name].decode(values), model, groups)
    driven = build_schedule(
        schedule, SCHEDULES[schedule].decode({}), optimizer, STEPS, momentum_warmup=warmup
    )
    seen = []
    for _ in range(STEPS):
        seen.append([g.get("momentum") or g["betas"][0] for g in optimizer.param_groups])
        optimizer.step()
        driven.step()
    return seen


@pytest.mark.parametrize("name", ["momentum", "nesterov", "adam", "nadam", "muon"])
def test_its_memory_grows_in_a_straight_line_from_two_steps_to_its_own(name: str) -> None:
    own = momenta(name, 0.0)[0]
    for group, course in zip(own, zip(*momenta(name, 0.5), strict=True), strict=True):
        memory = [1 / (1 - value) for value in course]
        slope = (1 / (1 - group) - 2) / 20
        assert memory[:20] == pytest.approx([2 + slope * step for step in range(20)])
        assert course[0] == 0.5
        assert set(course[20:]) == {group}


def test_it_is_the_law_of_sutskever_et_al_between_its_stairs() -> None:
    """Theirs is 1 - 2^(-1 - log2(floor(t / 250) + 1)), whose stairs are 250 steps wide."""
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.99)
    stairs = 250
    # Their memory grows by two every stair, so it has reached 100 after 49 of them.
    total = 49 * stairs
    driven = build_schedule("constant", {"warmup": 0.0}, optimizer, total, momentum_warmup=1.0)
    for step in range(0, total, stairs):
        driven.last_epoch = step
        driven.adopt()
        theirs = 1 - 2 ** (-1 - torch.tensor(step / stairs + 1).log2().item())
        assert optimizer.param_groups[0]["momentum"] == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize(("name", "values"), [("momentum", {"momentum": 0.4}), ("sgd", {})])
def test_a_momentum_below_the_start_stays(name: str, values: dict[str, float]) -> None:
    model = nn.Linear(1, 1)
    optimizer = build_optimizer(name, OPTIMIZERS[name].decode(dict(values)), model)
    before = optimizer.param_groups[0].get("momentum")
    build_schedule("constant", {"warmup": 0.0}, optimizer, 10, momentum_warmup=0.5)
    assert optimizer.param_groups[0]["momentum"] == before


def test_every_group_rises_to_its_own() -> None:
    groups = (GroupValues("first", "0.*", momentum=0.7),)
    course = momenta("adam", 0.5, groups=groups)
    assert course[0] == [0.5, 0.5]
    assert course[-1] == [0.7, 0.9]
    assert all(a <= b for a, b in itertools.pairwise(course))


@pytest.mark.parametrize("schedule", ["one_cycle", "cyclic"])
def test_a_schedule_that_cycles_the_momentum_goes_first(schedule: str) -> None:
    assert momenta("adam", 0.5, schedule) == momenta("adam", 0.0, schedule)


def test_it_counts_steps_where_the_rate_changes_by_epoch() -> None:
    rising: list[list[float]] = []
    for epoch_steps in (1, 7):
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1, momentum=0.9)
        driven = build_schedule(
            "linear",
            {"warmup": 0.0, "final_ratio": 0.0},
            optimizer,
            28,
            epoch_steps=epoch_steps,
            momentum_warmup=0.5,
        )
        rising.append([])
        for _ in range(28):
            rising[-1].append(optimizer.param_groups[0]["momentum"])
            optimizer.step()
            driven.step()
    assert rising[0] == rising[1]


def warmed(optimizer: str, **values: Any) -> Any:
    return dataclasses.replace(make_config(optimizer, **values), momentum_warmup=0.5)


@pytest.mark.parametrize("optimizer", ["momentum", "adam", "muon"])
@pytest.mark.parametrize("step", [3, 19, 20, 30])
def test_a_trial_continues_as_if_never_stopped(optimizer: str, step: int) -> None:
    groups = (GroupValues("first", "0.*", momentum=0.8, frozen_until=0.3),)
    prepared, config = prepare_workload(Droopy()), warmed(optimizer, groups=groups)
    whole = train(prepared, config=config)
    check_continued(whole, *stop_and_go(prepared, step, config=config))
    momentum = {group["momentum"] for group in whole.run.state.describe_groups()}
    assert 0.8 in momentum
    assert 0.5 not in momentum


def test_what_a_trial_trained_with_is_its_own_momentum_wherever_it_stopped() -> None:
    trial = train(prepare_workload(Droopy()), make_spec(40, 4), warmed("adam"))
    stopped, _ = stop_and_go(prepare_workload(Droopy()), 5, make_spec(40, 4), warmed("adam"))
    assert [g["momentum"] for g in stopped.run.state.describe_groups()] == [0.9]
    assert stopped.run.state.describe_groups() == trial.run.state.describe_groups()


def test_a_loop_without_a_schedule_is_told_that_its_momentum_would_not_rise() -> None:
    def loop(run: Run) -> None:
        optimizer = run.optimizer(nn.Linear(1, 1))
        for step in run.steps():
            optimizer.step()
            run.report(step, val_loss=1.0)

    with pytest.raises(SpecError, match=r"train\.momentum_warmup: the momentum rises with the"):
        train(loop, config=warmed("adam"))
    assert train(loop, config=make_config("adam")).outcome.ending == "complete"
