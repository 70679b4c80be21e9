"""YellowFin of many lanes, held to that of one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.fused.tables import tabulate
from tuner.fused.lane_state import LaneState, merge
from tuner.fused.lane_update import IDLE, WIDTH, Coefficients, Kind, update_lanes
from tuner.fused.update_rules import Stretch
from tuner.fused.yellowfin import new_measurements, tune_lanes
from tuner.optim.yellowfin import YellowFin

STEPS, SIZES = 200, (20, 10)
SEGMENTS = merge([(SIZES[0], 0), (SIZES[1], 1)])
CASES: list[dict[str, Any]] = [
    {},
    {"lr_factor": 3.0, "beta": 0.99, "window": 10},
    {"lr_factor": 0.3, "beta": 0.9, "window": 1, "weight_decay": 0.3},
    {"beta": 0.99, "window": 50, "weight_decay": 0.1},
]


class Problem:
    """A noisy quadratic with outliers among its gradients."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=torch.float64, generator=generator)

        self.curvature = draw(sum(SIZES)).abs() + 0.1
        self.noise = draw(STEPS, sum(SIZES))
        self.noise[[1, 2, 40, 150]] *= 1e3
        self.start = draw(sum(SIZES))
        self.factor = torch.cos(torch.arange(STEPS, dtype=torch.float64) / STEPS)

    def gradient(self, step: int, p: Tensor) -> Tensor:
        return self.curvature * p + self.noise[step]


def start(problem: Problem, lanes: int, window: int = 64) -> LaneState:
    p = problem.start.expand(lanes, -1).clone()
    zeros = torch.zeros_like(p)
    return LaneState(p, zeros, zeros.clone(), measured=new_measurements(lanes, window, p.device))


def step(state: LaneState, g: Tensor, coefficients: Tensor) -> None:
    tuned = tune_lanes(state, g, coefficients, SEGMENTS)
    update_lanes(state, g, tuned, SEGMENTS, frozenset(Kind))


def tables(problem: Problem, cases: list[dict[str, Any]]) -> Tensor:
    """Returns coefficients of two columns, the second with half the rate and no decay."""
    steps = torch.arange(1, STEPS + 1, dtype=torch.float64)
    found = []
    for case in cases:
        rates = case.get("lr_factor", 1.0) * problem.factor
        whole = tabulate("tuner.optim.YellowFin", case, Stretch(steps, rates))
        spared = case | {"weight_decay": 0.0}
        half = tabulate("tuner.optim.YellowFin", spared, Stretch(steps, rates / 2))
        found.append(torch.stack([whole, half], 1))
    return torch.stack(found, -1).unsqueeze(-1)


def train_single(problem: Problem, case: dict[str, Any]) -> Tensor:
    parts = [torch.nn.Parameter(part.clone()) for part in problem.start.split(SIZES)]
    factor = case.get("lr_factor", 1.0)
    groups = [
        {"params": parts[:1]},
        {"params": parts[1:], "lr_factor": factor / 2, "weight_decay": 0.0},
    ]
    optimizer = YellowFin(groups, **case)
    for number in range(STEPS):
        optimizer.param_groups[0]["lr_factor"] = factor * problem.factor[number].item()
        optimizer.param_groups[1]["lr_factor"] = factor / 2 * problem.factor[number].item()
        g = problem.gradient(number, torch.cat([p.detach() for p in parts]))
        for p, own in zip(parts, g.split(SIZES), strict=True):
            p.grad = own.clone()
        optimizer.step()
    return torch.cat([p.detach() for p in parts])


def test_lanes_end_where_single_ones_end() -> None:
    problem = Problem()
    state = start(problem, len(CASES))

    for number, coefficients in enumerate(tables(problem, CASES)):
        step(state, problem.gradient(number, state.p), coefficients)

    for lane, case in enumerate(CASES):
        torch.testing.assert_close(
            state.p[lane], train_single(problem, case), rtol=1e-10, atol=1e-10, msg=str(case)
        )


def test_room_for_longer_windows_changes_nothing() -> None:
    problem = Problem()
    table = tables(problem, CASES)
    rooms = [start(problem, len(CASES), room) for room in (50, 256)]

    for number in range(60):
        for state in rooms:
            step(state, problem.gradient(number, state.p), table[number])

    assert torch.equal(rooms[0].p, rooms[1].p)


@pytest.mark.parametrize("at", [0, 1, 30])
def test_a_gradient_that_is_not_finite_shows_for_good_in_its_lane_alone(at: int) -> None:
    problem = Problem()
    table = tables(problem, [{"beta": 0.9}] * 2)
    alone, beside = start(problem, 2), start(problem, 2)

    for number in range(at + 3):
        for state in (alone, beside):
            g = problem.gradient(number, state.p)
            if state is beside and number == at:
                g[1, 3] = torch.inf
            step(state, g, table[number])

    assert beside.p[1].isnan().all()
    assert torch.equal(beside.p[0], alone.p[0])


def test_other_lanes_and_those_that_are_over_measure_nothing() -> None:
    problem = Problem()
    table = tables(problem, [{}] * 3)
    names = list(Coefficients._fields)
    idle = torch.tensor([IDLE.get(name, 0.0) for name in names]).double()
    adam = tabulate("torch.optim.Adam", {"lr": 0.1}, Stretch(torch.ones(1), torch.full((1,), 0.1)))
    state = start(problem, 3)
    step(state, problem.gradient(0, state.p), table[0])
    before = state.measured.clone() if state.measured is not None else torch.empty(0)
    row = table[1].clone()
    row[:, :, 0, 0], row[:, :, 1, 0] = idle, adam[0]

    tuned = tune_lanes(state, problem.gradient(1, state.p), row, SEGMENTS)

    assert state.measured is not None
    assert torch.equal(state.measured[:2], before[:2])
    assert not torch.equal(state.measured[2], before[2])
    assert torch.equal(tuned[:, :, :2], row[:, :, :2])


def test_a_step_reads_nothing_back() -> None:
    # Tensors there have no values to read.
    rows = [torch.empty(4, sum(SIZES), device="meta") for _ in range(4)]
    measured = new_measurements(4, 64, torch.device("meta"))
    state = LaneState(rows[0], rows[1], rows[2], measured=measured)

    step(state, rows[3], torch.empty(2, WIDTH, 4, 1, device="meta"))
