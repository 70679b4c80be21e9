from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.fused.tables import tabulate
from tuner import Batch, Data
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.fused.compiler import Compiler
from tuner.fused.lane_state import LaneState, merge
from tuner.fused.lane_update import WIDTH, Kind
from tuner.fused.step import FusedStep
from tuner.fused.update_rules import RULES, Stretch
from tuner.optim.build import find_constructor

STEPS = 200
ROWS = 16


class Small:
    """A small network on made-up data, in float64."""

    def __init__(self, build: Callable[[], nn.Module]) -> None:
        self._build = build

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return self._build().double()

    def data(self) -> Data:
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(64, 4, generator=generator, dtype=torch.float64)
        y = (x[:, 0] * x[:, 1] > 0).long() + (x[:, 2] > 0).long()
        return Data(train=(x, y), val=(x, y))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        x, y = batch
        return cross_entropy(model(x), y)

    def metrics(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        return {"val_loss": self.loss(model, batch)}


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def normalized() -> nn.Module:
    # A bias before the norm would have a gradient of rounding errors alone, of which optimizers
    # that look at signs make steps.
    first = nn.Linear(4, 8, bias=False)
    return nn.Sequential(first, nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


CASES = [
    (call.target, call.arguments)
    for call in (row.calls(row.decode({}))[0] for row in OPTIMIZERS.values())
    if call.target in RULES and "lr" in call.arguments and call.parameters == "all"
    if call.wrapper is None
]


def batch_of(workload: Small, step: int) -> Batch:
    start = step * ROWS % 64
    return tuple(tensor[start : start + ROWS] for tensor in workload.data().train)


def train_single(
    workload: Small, target: str, arguments: dict[str, Any], clip: float | None = None
) -> nn.Module:
    model = workload.model()
    optimizer = find_constructor(target)(model.parameters(), **arguments)
    for step in range(STEPS):
        loss = workload.loss(model, batch_of(workload, step))
        optimizer.zero_grad()
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return model


def tabulate_all(cases: list[tuple[str, dict[str, Any]]]) -> Tensor:
    """Returns coefficients of shape (steps, 1, WIDTH, lanes, 1)."""
    steps = torch.arange(1, STEPS + 1, dtype=torch.float64)
    tables = [
        tabulate(target, arguments, Stretch(steps, torch.full_like(steps, arguments["lr"])))
        for target, arguments in cases
    ]
    return torch.stack(tables, -1).reshape(STEPS, 1, WIDTH, len(cases), 1)


def train_fused(
    workload: Small,
    cases: list[tuple[str, dict[str, Any]]],
    *,
    clip: float | None = None,
) -> tuple[FusedStep, LaneState]:
    model, lanes = workload.model(), len(cases)
    row = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    zeros = torch.zeros(lanes, len(row), dtype=row.dtype)
    buffers = {n: b.expand(lanes, *b.shape).clone() for n, b in model.named_buffers()}
    state = LaneState(row.expand(lanes, -1).clone(), zeros, zeros.clone(), buffers=buffers)
    step = FusedStep(
        workload,
        model,
        merge([(len(row), 0)]),
        frozenset(Kind),
        Compiler(enabled=False),
        grad_clip=clip,
        precision="float64",
    )
    for number, coefficients in enumerate(tabulate_all(cases)):
        step(state, coefficients, batch_of(workload, number))
    return step, state


@pytest.mark.parametrize("build", [plain, normalized])
def test_lanes_end_where_single_models_end(build: Callable[[], nn.Module]) -> None:
    workload = Small(build)
    step, state = train_fused(workload, CASES)

    for lane, (target, arguments) in enumerate(CASES):
        single = train_single(workload, target, arguments)
        own = step.layout.split(state.p[lane]) | {n: b[lane] for n, b in state.buffers.items()}
        for name, value in single.state_dict().items():
            torch.testing.assert_close(own[name], value, rtol=1e-10, atol=1e-10, msg=target)


def test_every_lane_is_clipped_by_its_own_norm() -> None:
    workload = Small(plain)
    cases = [("torch.optim.SGD", {"lr": 0.1}), ("torch.optim.SGD", {"lr": 3.0})]
    step, state = train_fused(workload, cases, clip=0.05)

    for lane, (target, arguments) in enumerate(cases):
        single = train_single(workload, target, arguments, clip=0.05)
        own = step.layout.split(state.p[lane])
        for name, value in single.named_parameters():
            torch.testing.assert_close(own[name], value.detach(), rtol=1e-10, atol=1e-10)


def test_lane_that_turns_nan_leaves_its_neighbours_alone() -> None:
    workload = Small(plain)
    healthy = ("torch.optim.Adam", {"lr": 0.01})
    sick = ("torch.optim.SGD", {"lr": float("inf")})

    _, alone = train_fused(workload, [healthy, healthy])
    _, beside = train_fused(workload, [healthy, sick])

    assert beside.p[1].isnan().all()
    assert torch.equal(alone.p[0], beside.p[0])
