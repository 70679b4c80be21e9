from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.fused.cohorts import (
    FUSABLE,
    Blobs,
    Droopy,
    Frozen,
    Normed,
    check_same,
    train_lanes,
)
from tests.training.trials import make_config, make_spec, prepare_workload
from tuner.domain.groups import GroupValues
from tuner.fused.eligibility import Refusals
from tuner.training.prepared_workload import PreparedWorkload
from tuner.training.seeds import random_state
from tuner.training.workload import Batch


def refusal_of(workload: Any, precision: str = "float32", **changes: Any) -> str | None:
    config = replace(make_config("adam"), **changes)
    return Refusals(prepare_workload(workload, precision), make_spec())(config)


class Assigned(nn.Module):
    """Keeps a mean in a buffer that each pass replaces."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 3)
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * out.detach().mean(0)
        return out - self.mean


class Enclosed(nn.Module):
    """Computes by a function that has been given the module itself."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.ones(3))
        self.act: Callable[[Tensor], Tensor] = lambda out: out * self.scale

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.body(x))


class Of(Blobs):
    """Blobs with a model of one's own."""

    def __init__(self, build: Callable[[], nn.Module]) -> None:
        self._build = build

    def model(self) -> nn.Module:
        return self._build()


class Marked(Blobs):
    """Keeps a number that differs from itself."""

    def __init__(self) -> None:
        self.unknown = math.nan


@pytest.mark.parametrize(
    "workload", [Blobs(), Droopy(), Normed(), Frozen(), Marked(), Of(Assigned), Of(Enclosed)]
)
def test_what_can_be_stacked_trains_as_alone(workload: Blobs) -> None:
    assert refusal_of(workload) is None
    prepared, spec = prepare_workload(workload, "float64"), make_spec(steps=20, evaluations=4)
    configs = [make_config("adam"), make_config("momentum")]
    check_same(train_lanes(prepared, configs, spec), prepared, spec, configs)


def test_each_optimizer_can_be_fused_or_has_no_rule(blobs: PreparedWorkload) -> None:
    refusals = Refusals(blobs, make_spec())
    assert [refusals(make_config(name)) for name in FUSABLE] == [None] * len(FUSABLE)
    for name in ("lbfgs", "adafactor", "prodigy", "sparse_adam", "pytorch_optimizer:Tiger"):
        assert "no rule for many lanes" in str(refusals(make_config(name)))


def test_groups_that_match_nothing_are_refused() -> None:
    groups = (GroupValues("body", "body.*"),)
    assert "no parameter" in str(refusal_of(Blobs(), groups=groups))


class Branching(Blobs):
    def loss(self, model: nn.Module, batch: Batch) -> Any:
        loss = super().loss(model, batch)
        return loss if loss > 0.1 else loss * 2


class Raising(Blobs):
    def loss(self, model: nn.Module, batch: Batch) -> Any:
        raise ValueError("the scale is off")


class Counting(Blobs):
    turns = 0

    def loss(self, model: nn.Module, batch: Batch) -> Any:
        self.turns += 1
        return super().loss(model, batch) * (2 if self.turns > 12 else 1)


class Drawing(Blobs):
    def loss(self, model: nn.Module, batch: Batch) -> Any:
        return super().loss(model, batch) * (1 + random.random())  # noqa: S311


class Weighted(Blobs):
    """Reads its labels in a way that no trace sees."""

    def loss(self, model: nn.Module, batch: Batch) -> Any:
        counts = torch.tensor(np.bincount(batch[1].tolist(), minlength=3) + 1.0)
        return cross_entropy(model(batch[0]), batch[1], weight=counts.to(batch[0].dtype))


class Penalised(Blobs):
    """Counts among its losses the size of what can be trained: of lanes, that is not told."""

    def loss(self, model: nn.Module, batch: Batch) -> Any:
        own = [p for p in model.parameters() if isinstance(p, nn.Parameter)]
        return super().loss(model, batch) + sum(p.square().sum() for p in own)


class Measuring(Blobs):
    """Leaves statistics of validation data in its model."""

    def metrics(self, model: nn.Module, batch: Batch) -> Any:
        model.train()
        model(batch[0])
        return {"val_loss": self.loss(model.eval(), batch)}

    model = Normed.model


class Thawing(Blobs):
    """Trains its bias from the first step on."""

    def model(self) -> nn.Module:
        model = nn.Linear(4, 3)
        model.bias.requires_grad_(False)
        return model

    def loss(self, model: nn.Module, batch: Batch) -> Any:
        return super().loss(model.requires_grad_(True), batch)


def hooked() -> nn.Module:
    model = nn.Linear(4, 3)
    model.weight.register_hook(lambda gradient: 0.1 * gradient)
    return model


def idle() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 3))
    model.register_parameter("spare", nn.Parameter(torch.ones(2)))
    return model


@pytest.mark.parametrize(
    ("workload", "reason"),
    [
        (Branching(), "the model cannot be stacked"),
        (Raising(), "trying it has raised ValueError: the scale is off"),
        (Counting(), "a step changes the workload.turns: keep what changes in a buffer"),
        (Drawing(), "it draws random numbers by Python or NumPy"),
        (Penalised(), "its models train otherwise than alone: after 5 steps"),
        (Measuring(), "its models train otherwise than alone: after 5 steps"),
        (Of(hooked), "a hook is on the gradient of weight"),
        (Of(idle), "spare gets no gradient"),
        (Thawing(), "a step freezes or thaws bias"),
    ],
)
def test_what_lanes_would_do_otherwise_is_refused(workload: Any, reason: str) -> None:
    assert reason in str(refusal_of(workload))


def test_reading_that_no_trace_sees_is_refused() -> None:
    # torch 2.9 finds it out while it traces; newer ones trace it, and the models then differ.
    reasons = ("the model cannot be stacked", "its models train otherwise than alone")
    said = str(refusal_of(Weighted()))
    assert any(reason in said for reason in reasons)


def test_tensors_of_one_type_only_are_no_reason() -> None:
    class Fixed(Blobs):
        def loss(self, model: nn.Module, batch: Batch) -> Any:
            weight = torch.tensor([1.0, 2.0, 3.0])
            return cross_entropy(model(batch[0]), batch[1], weight=weight)

    assert refusal_of(Fixed()) is None


def test_looking_leaves_randomness_and_data_alone(blobs: PreparedWorkload) -> None:
    before = random_state(blobs.device)
    data = [tensor.clone() for tensor in (*blobs.data.train, *blobs.data.val)]

    Refusals(blobs, make_spec())(make_config("adam"))

    after = random_state(blobs.device)
    assert torch.equal(before["torch"], after["torch"])
    assert before["python"] == after["python"]
    assert all(map(torch.equal, data, (*blobs.data.train, *blobs.data.val)))


def test_other_rates_of_the_same_groups_are_not_tried_again(
    blobs: PreparedWorkload, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = Refusals(blobs, make_spec())
    refusals(make_config("adam"))
    monkeypatch.setattr(refusals, "_find_unlike", lambda config: pytest.fail("tried again"))
    assert refusals(make_config("momentum", lr=0.5, batch_size=8)) is None


def test_where_torch_cannot_trace_no_trial_trains_as_a_lane(
    blobs: PreparedWorkload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(torch._guards, "TracingContext")
    assert "cannot trace lanes" in str(Refusals(blobs, make_spec())(make_config("adam")))
