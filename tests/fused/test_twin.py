"""A lane is compared with its trial alone, at a later step."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
from torch import nn

from tests.fused.cohorts import Blobs, CohortRecorder, Droopy, Frozen, Normed
from tests.training.trials import Line, averaged, make_config, make_spec, prepare_workload
from tuner.domain.groups import GroupValues
from tuner.domain.spec import StudySpec
from tuner.fused.cohort import Cohort
from tuner.fused.eligibility import Refusals
from tuner.fused.lane import LaneStart
from tuner.fused.model import FusedModel
from tuner.fused.twin import ApartError, Twin
from tuner.training.workload import Batch

CONFIGS = [
    make_config("adam", lr=0.05),
    averaged(make_config("momentum", lr=0.3), decay=0.9),
    make_config("muon", lr=0.02),
    make_config("lookahead(adamw)", lr=0.03),
    make_config("yellowfin"),
]


def cohort_with(
    twin: Twin | None,
    workload: Any,
    spec: StudySpec | None = None,
    configs: Any = tuple(CONFIGS[:2]),
    recorder: CohortRecorder | None = None,
) -> Cohort:
    spec = spec or make_spec(60, 4)
    model = FusedModel(prepare_workload(workload, spec.train.precision), spec)
    starts = [LaneStart(config) for config in configs]
    return Cohort(model, starts, recorder or CohortRecorder(), twin=twin)


@pytest.mark.parametrize(
    ("workload", "precision"),
    [
        (Blobs(), "float64"),
        (Normed(), "float32"),
        (Droopy(), "float32"),
        (Droopy(), "bfloat16"),
        (Frozen(), "float64"),
    ],
)
def test_lanes_that_train_as_alone_pass(workload: Blobs, precision: str) -> None:
    twin = Twin(27)
    cohort_with(twin, workload, make_spec(30, 2, train={"precision": precision})).train()
    assert twin.done


def test_lanes_of_every_kind_pass() -> None:
    twin = Twin(3)
    cohort_with(twin, Normed(), make_spec(5, 1), CONFIGS).train()
    assert twin.done


def test_lanes_at_rest_pass() -> None:
    twin, configs = Twin(590), [make_config("adam", lr=0.1), make_config("rprop", lr=0.01)]
    cohort_with(twin, Line(), make_spec(600, 1), configs).train()
    assert twin.done


@pytest.mark.parametrize("at", [2, 18])
def test_lanes_with_groups_clipping_and_parts_pass(at: int) -> None:
    groups = (
        GroupValues("first", "0.*", lr_multiplier=3.0, frozen_until=0.3),
        GroupValues("last", "*.bias", weight_decay=0.1, momentum=0.5),
    )
    train = {
        "grad_clip": 0.05,
        "accumulate": 3,
        "precision": "float64",
        "no_decay_on_biases_and_norms": True,
    }
    twin, spec = Twin(at), make_spec(20, 1, train=train)
    configs = [replace(config, groups=groups) for config in CONFIGS[:2]]
    cohort_with(twin, Blobs(), spec, configs).train()
    assert twin.done


class Hiding(Blobs):
    """Counts its steps where nobody looks, and does otherwise after some."""

    def __init__(self, counter: str) -> None:
        self.counter = counter

    def loss(self, model: nn.Module, batch: Batch) -> Any:
        loss = super().loss(model, batch)
        if not model.training:
            return loss
        state: Any = sys.modules[self.counter]
        state.turns += 1
        return self.weigh(loss, state.turns)

    def weigh(self, loss: Any, turns: int) -> Any:
        return loss * (1 + turns // 60)


class Switching(Hiding):
    """Another loss after some passes, as a curriculum has."""

    def weigh(self, loss: Any, turns: int) -> Any:
        return loss if turns <= 60 else loss.square()


class Growing(Hiding):
    """A little more at each pass; it cannot be traced, but moves on as it is compared."""

    def weigh(self, loss: Any, turns: int) -> Any:
        return loss * (1 + 0.1 * turns)


class Steering(Hiding):
    """The same loss, but another gradient."""

    def weigh(self, loss: Any, turns: int) -> Any:
        return loss + turns // 60 * (loss - loss.detach())


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> str:
    state: Any = ModuleType("hidden_counter")
    state.turns = 0
    monkeypatch.setitem(sys.modules, state.__name__, state)
    return state.__name__  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [Hiding, Switching, Steering])
def test_what_no_look_finds_shows_at_a_later_step(kind: type[Hiding], counter: str) -> None:
    prepared, spec = prepare_workload(kind(counter)), make_spec(90, 1)
    assert Refusals(prepared, spec)(make_config()) is None
    with pytest.raises(ApartError, match="After 80 steps a lane does otherwise than its trial"):
        cohort_with(Twin(80), kind(counter), spec).train()


def test_what_changes_at_each_pass_shows_too(counter: str) -> None:
    with pytest.raises(ApartError, match="its loss is another each time"):
        cohort_with(Twin(5), Growing(counter), make_spec(20, 1)).train()


def test_what_begins_later_than_the_step_is_not_seen(counter: str) -> None:
    twin = Twin(5)
    cohort_with(twin, Switching(counter), make_spec(20, 1)).train()
    assert twin.done


def test_comparing_leaves_training_alone() -> None:
    found = []
    for twin in (None, Twin(20)):
        recorder = CohortRecorder()
        cohort_with(twin, Droopy(), recorder=recorder).train()
        found.append([e.metrics for lane in recorder.evaluations.values() for e in lane])
    assert found[0] == found[1]


def test_a_cohort_that_is_to_stop_does_not_wait_for_the_twin() -> None:
    twin, recorder = Twin(20), CohortRecorder(interrupt_at=20)
    cohort = cohort_with(twin, Blobs(), recorder=recorder)
    assert {outcome.ending for outcome in cohort.train()} == {"interrupted"}
    assert not twin.done
