"""What steps change in Python is found wherever it lies."""

from __future__ import annotations

import collections
import dataclasses
import functools
import io
import itertools
import random
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.fused.cohorts import Blobs, check_same, train_lanes
from tests.training.trials import make_config, make_spec, prepare_workload
from tuner.fused.eligibility import Refusals
from tuner.fused.reachable import Reachable
from tuner.training.prepared_workload import PreparedWorkload
from tuner.training.workload import Batch

TURNS = 0
STATE = {"steps": 0}
THIS: Any = sys.modules[__name__]


@dataclasses.dataclass
class Turns:
    count: int = 0


class Slotted:
    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Ringed:
    """Refers to itself, and raises when it is looked at."""

    def __init__(self) -> None:
        self.me = self
        self.steps = [0]

    @property
    def worst(self) -> int:
        raise ZeroDivisionError


class Keeping(Blobs):
    """Weighs its loss by a number of steps, which it keeps somewhere."""

    known = 0

    def __init__(self, keep: Any, count: Callable[[Any], float]) -> None:
        self.state, self._count = keep, count

    def loss(self, model: nn.Module, batch: Batch) -> Any:
        return super().loss(model, batch) * (1 + 0.1 * self._count(self.state))


def numbers() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


def by_item(state: Any, key: Any = "steps") -> float:
    state[key] += 1
    return float(state[key])


def by_attribute(state: Any) -> float:
    state.count += 1
    return float(state.count)


def by_length(state: Any) -> float:
    state.append(1) if hasattr(state, "append") else state.add(len(state))
    return len(state)


def by_class(state: Any) -> float:
    Keeping.known += 1
    return Keeping.known


def by_global(state: Any) -> float:
    global TURNS  # noqa: PLW0603
    TURNS += 1
    return TURNS


def by_global_container(state: Any) -> float:
    return by_item(STATE)


def by_module(state: Any) -> float:
    THIS.TURNS += 1
    return float(THIS.TURNS)


def in_a_closure() -> Callable[[Any], float]:
    turns = 0

    def count(state: Any) -> float:
        nonlocal turns
        turns += 1
        return turns

    return count


def by_default(state: Any, turns: list[int] = [0]) -> float:  # noqa: B006
    return by_item(turns, 0)


KEPT: dict[str, tuple[Callable[[], Any], Callable[[Any], float]]] = {
    "dict": (lambda: {"steps": 0}, by_item),
    "counter": (collections.Counter, by_item),
    "nested": (lambda: [{"a": ({"steps": 0},)}], lambda s: by_item(s[0]["a"][0])),
    "list": (lambda: [0], functools.partial(by_item, key=0)),
    "longer list": (list, by_length),
    "deque": (lambda: collections.deque(maxlen=100), by_length),
    "set": (set, by_length),
    "namespace": (lambda: types.SimpleNamespace(count=0), by_attribute),
    "dataclass": (Turns, by_attribute),
    "slots": (Slotted, by_attribute),
    "ring": (Ringed, lambda s: by_item(s.steps, 0)),
    "count": (itertools.count, next),
    "cycle": (lambda: itertools.cycle([1, 2, 3]), next),
    "iterator": (lambda: iter(range(100)), next),
    "generator": (numbers, next),
    "random": (lambda: random.Random(0), lambda s: s.random()),  # noqa: S311
    "numpy random": (lambda: np.random.default_rng(0), lambda s: float(s.random())),
    "torch random": (torch.Generator, lambda s: torch.rand(1, generator=s).item()),
    "array": (lambda: np.zeros(3), functools.partial(by_item, key=1)),
    "bytearray": (lambda: bytearray(3), functools.partial(by_item, key=1)),
    "tensor": (lambda: torch.zeros(3), functools.partial(by_item, key=1)),
    "module of a workload": (nn.ReLU, lambda s: by_item(vars(s).setdefault("n", [0]), 0)),
    "class attribute": (lambda: None, by_class),
    "global": (lambda: None, by_global),
    "global container": (lambda: None, by_global_container),
    "module": (lambda: None, by_module),
    "default": (lambda: None, by_default),
    "closure": (lambda: None, in_a_closure()),
    "partial": (lambda: None, functools.partial(lambda turns, s: by_item(turns, 0), [0])),
}


@pytest.mark.parametrize("kind", list(KEPT))
def test_a_step_that_counts_anywhere_trains_alone(kind: str) -> None:
    keep, count = KEPT[kind]
    refused = Refusals(prepare_workload(Keeping(keep(), count)), make_spec())(make_config())
    assert "a step changes" in str(refused), kind


def test_the_reason_names_where_it_is() -> None:
    workload = Keeping({"steps": 0}, by_item)
    refused = Refusals(prepare_workload(workload), make_spec())(make_config())
    assert refused == "a step changes the workload.state['steps']: keep what changes in a buffer"


class Hidden(nn.Module):
    """Counts its passes in a container, deep in a model."""

    def __init__(self) -> None:
        super().__init__()
        self.state = {"passes": 0}

    def forward(self, x: Tensor) -> Tensor:
        self.state["passes"] += 1
        return x * (1 + 0.1 * self.state["passes"])


def test_what_modules_of_a_model_count_is_found() -> None:
    class Deep(Blobs):
        def model(self) -> nn.Module:
            return nn.Sequential(super().model(), nn.Sequential(nn.Sequential(Hidden())))

    refused = Refusals(prepare_workload(Deep()), make_spec())(make_config())
    assert refused == "a step changes 1.0.0.state['passes']: keep what changes in a buffer"


class Busy(Blobs):
    """Keeps much, and changes nothing of it after the first step."""

    def __init__(self) -> None:
        self.words = [str(number) for number in range(50_000)]
        self.table = np.arange(1000.0)
        self.me, self.cache = self, dict[int, Tensor]()
        self.noise, self.opened = torch.randn(100_000), io.StringIO("words")

    def loss(self, model: nn.Module, batch: Batch) -> Any:
        rows = len(batch[1])
        if rows not in self.cache:
            self.cache[rows] = torch.tensor(1.5)
        return super().loss(model, batch) * float(self.cache[rows])


def test_what_is_only_kept_is_no_reason() -> None:
    prepared, spec = prepare_workload(Busy(), "float64"), make_spec(steps=20, evaluations=4)
    configs = [make_config("adam"), make_config("momentum")]
    assert Refusals(prepared, spec)(configs[0]) is None
    check_same(train_lanes(prepared, configs, spec), prepared, spec, configs)


def test_looking_is_bounded(blobs: PreparedWorkload) -> None:
    values = Reachable({"all": [[[number] for number in range(40)] for _ in range(1000)]}).values()
    assert 10_000 < len(values) <= 20_000
