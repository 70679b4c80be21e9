from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.fused.tables import tabulate
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.fused.lane_update import Coefficients, Kind, update
from tuner.fused.update_rules import RULES, Stretch
from tuner.optim.build import find_constructor

STEPS, NUMBERS = 200, 30

DEFAULTS = [
    (call.target, call.arguments)
    for call in (row.calls(row.decode({}))[0] for row in OPTIMIZERS.values())
    if call.target in RULES and "lr" in call.arguments and call.parameters == "all"
    if call.wrapper is None
]
TUNED: list[tuple[str, dict[str, Any]]] = [
    ("torch.optim.SGD", {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1, "nesterov": True}),
    ("torch.optim.Adam", {"lr": 0.02, "weight_decay": 0.1}),
    ("torch.optim.AdamW", {"lr": 0.02, "weight_decay": 0.1, "betas": (0.0, 0.5)}),
    ("torch.optim.RAdam", {"lr": 0.02, "betas": (0.9, 0.95)}),
    ("torch.optim.RMSprop", {"lr": 0.01, "weight_decay": 0.1, "eps": 1e-3}),
    ("torch.optim.Adadelta", {"lr": 2.0, "weight_decay": 0.1}),
    ("torch.optim.Rprop", {"lr": 0.1, "etas": (0.4, 1.3)}),
]


class Problem:
    """A noisy quadratic whose gradient is the same function for a lane and its twin."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=torch.float64, generator=generator)

        self.curvature = draw(NUMBERS).abs() + 0.1
        self.noise = draw(STEPS, NUMBERS)
        self.start = draw(NUMBERS)
        self.factor = torch.cos(torch.arange(STEPS, dtype=torch.float64) / STEPS)

    def gradient(self, step: int, p: Tensor) -> Tensor:
        return self.curvature * p + self.noise[step]


def train_twin(problem: Problem, target: str, arguments: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Returns where torch's own optimizer ends, and the learning rates it had."""
    p = torch.nn.Parameter(problem.start.clone())
    optimizer = find_constructor(target)([p], **arguments)
    rates = optimizer.param_groups[0]["lr"] * problem.factor
    for step, rate in enumerate(rates.tolist()):
        optimizer.param_groups[0]["lr"] = rate
        p.grad = problem.gradient(step, p.detach())
        optimizer.step()
    return p.detach(), rates


def train_lanes(problem: Problem, table: Tensor, kinds: set[Kind]) -> Tensor:
    p = problem.start.expand(table.shape[1], NUMBERS).clone()
    m, s = torch.zeros_like(p), torch.zeros_like(p)
    for step in range(STEPS):
        c = Coefficients(*table[step].T.unsqueeze(-1))
        p, m, s = update(p, problem.gradient(step, p), m, s, c, kinds)
    return p


def relative(error: Tensor, of: Tensor) -> float:
    return float(error.norm() / of.norm())


def test_lanes_of_all_kinds_together_end_where_their_twins_end() -> None:
    problem = Problem()
    cases = DEFAULTS + TUNED
    steps = torch.arange(1, STEPS + 1, dtype=torch.float64)
    ends, tables = [], []
    for target, arguments in cases:
        end, rates = train_twin(problem, target, arguments)
        ends.append(end)
        tables.append(tabulate(target, arguments, Stretch(steps, rates)))

    lanes = train_lanes(problem, torch.stack(tables, 1), set(Kind))

    errors = {str(c): relative(a - b, b) for c, a, b in zip(cases, lanes, ends, strict=True)}
    assert max(errors.values()) < 1e-10, errors


@pytest.mark.parametrize(("target", "arguments"), DEFAULTS)
def test_lane_does_not_depend_on_the_kinds_of_its_neighbours(
    target: str, arguments: dict[str, Any]
) -> None:
    problem = Problem()
    stretch = Stretch(torch.arange(1.0, STEPS + 1).double(), arguments["lr"] * problem.factor)
    table = tabulate(target, arguments, stretch)[:, None]
    kinds = {Kind(int(kind)) for kind in table[..., 0].unique()}

    alone, among = (train_lanes(problem, table, found) for found in (kinds, set(Kind)))

    assert torch.equal(alone, among)


def test_momentum_of_a_schedule_reaches_its_lanes() -> None:
    problem = Problem()
    course = torch.linspace(0.95, 0.8, STEPS, dtype=torch.float64)
    steps = torch.arange(1, STEPS + 1, dtype=torch.float64)
    for target in ("torch.optim.SGD", "torch.optim.Adam", "torch.optim.NAdam"):
        sgd = target.endswith("SGD")
        arguments = {"lr": 0.01} | ({"momentum": 0.9} if sgd else {})
        p = torch.nn.Parameter(problem.start.clone())
        optimizer = find_constructor(target)([p], **arguments)
        for step, momentum in enumerate(course.tolist()):
            change = {"momentum": momentum} if sgd else {"betas": (momentum, 0.999)}
            optimizer.param_groups[0] |= change
            p.grad = problem.gradient(step, p.detach())
            optimizer.step()

        rates = torch.full((STEPS,), 0.01, dtype=torch.float64)
        table = tabulate(target, arguments, Stretch(steps, rates, course))[:, None]
        [lane] = train_lanes(problem, table, set(Kind))

        assert relative(lane - p.detach(), p.detach()) < 1e-9, target
