"""Lanes that average their weights, held to single trials that do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.fused.cohorts import (
    Blobs,
    CohortRecorder,
    Trained,
    check_same,
    train_lanes,
)
from tests.training.trials import averaged, make_config, make_spec, prepare_workload, train
from tuner.fused.averaging import AveragingTimes
from tuner.fused.cohort import Cohort
from tuner.fused.lane import LaneStart
from tuner.fused.model import FusedModel
from tuner.optim.averages import build_average
from tuner.training.prepared_workload import PreparedWorkload

SPEC = make_spec(steps=60, evaluations=6)
CONFIGS = [
    averaged(make_config("adam", lr=0.03), "ema", decay=0.9),
    averaged(make_config("momentum", lr=0.03), "swa", start=0.5),
    averaged(make_config("lookahead(adamw)", lr=0.03), "ema", decay=0.8, start=0.3, interval=7),
    averaged(make_config("yellowfin"), "swa", start=0.2, interval=3),
    make_config("rmsprop"),
]


class Norms(nn.Module):
    """A network with dropout and a norm that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8, bias=False), nn.Linear(8, 3)
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x: Tensor) -> Tensor:
        """Returns scores of three classes."""
        hidden = nn.functional.dropout(self.norm(self.first(x)), 0.2, self.training)
        scores: Tensor = self.last(self.norm(hidden).relu())
        return scores


class Normed(Blobs):
    def model(self) -> nn.Module:
        return Norms()


def line_of(cohort: Cohort, lane: int) -> list[tuple[float, float]]:
    line: list[tuple[float, float]] = cohort.describe(lane).get("average_line", [])
    return line


def check_line(fused: Trained, lane: int, prepared: PreparedWorkload, spec: Any) -> None:
    line = train(prepared, spec, CONFIGS[lane]).run.average_line
    found = line_of(fused.cohort, lane)
    assert [place for place, _ in found] == [place for place, _ in line]
    assert [v for _, v in found] == pytest.approx([v for _, v in line], rel=1e-10)


@pytest.mark.parametrize("workload", [Blobs(), Normed()])
def test_lanes_are_evaluated_by_their_averages_as_single_trials_are(workload: Blobs) -> None:
    prepared = prepare_workload(workload, "float64")
    spec = make_spec(steps=60, evaluations=6, train={"accumulate": 3})

    fused = train_lanes(prepared, CONFIGS, spec)

    check_same(fused, prepared, spec, CONFIGS)
    for lane in range(len(CONFIGS)):
        check_line(fused, lane, prepared, spec)
    assert [bool(line_of(fused.cohort, lane)) for lane in range(5)] == [True] * 4 + [False]


def test_measuring_an_average_leaves_training_alone() -> None:
    prepared = prepare_workload(Normed())
    plain = [make_config("adam", lr=0.03), make_config("momentum", lr=0.03)]
    ends = []
    for configs in (plain, CONFIGS[:2]):
        cohort = Cohort(
            FusedModel(prepared, SPEC), [LaneStart(c) for c in configs], CohortRecorder()
        )
        cohort.train()
        ends.append(cohort.rows())

    assert torch.equal(*ends)


def test_only_complete_lanes_are_compared_with_their_last_weights() -> None:
    prepared = prepare_workload(Normed(), "float64")
    recorder = CohortRecorder(prune_at={0: 40, 2: 20, 3: 60})

    fused = train_lanes(prepared, CONFIGS, SPEC, recorder)

    assert [o.ending == "pruned" for o in fused.outcomes] == [True, False, True, True, False]
    assert [len(line_of(fused.cohort, lane)) for lane in range(5)] == [0, 7, 0, 0, 0]
    check_same(fused, prepared, SPEC, CONFIGS, lanes=[1])
    check_line(fused, 1, prepared, SPEC)


@pytest.fixture(scope="module")
def whole() -> Trained:
    """Returns a cohort that has trained without a stop."""
    return train_lanes(prepare_workload(Normed(), "float64"), CONFIGS, SPEC)


@pytest.mark.parametrize("step", [5, 20, 37])
def test_averages_continue_as_if_they_had_never_stopped(whole: Trained, step: int) -> None:
    prepared = prepare_workload(Normed(), "float64")
    stopped = train_lanes(prepared, CONFIGS, SPEC, CohortRecorder(interrupt_at=step))

    lanes = [3, 0, 4, 2, 1]
    continued = train_lanes(
        prepared, [CONFIGS[lane] for lane in lanes], SPEC, states=stopped.states(lanes)
    )

    for place, lane in enumerate(lanes):
        # In another order, kernels may add up in another order, too.
        values = stopped.values(lane) + continued.values(place)
        assert values == pytest.approx(whole.values(lane), rel=1e-10)
        line = dict(line_of(whole.cohort, lane))
        assert dict(line_of(continued.cohort, place)) == pytest.approx(line, rel=1e-10)


def test_lanes_continue_beside_others_than_before() -> None:
    # Neither averages, YellowFin nor Lookahead were there when these were trained.
    prepared = prepare_workload(Blobs(), "float64")
    plain = [make_config("adam"), make_config("rmsprop")]
    stopped = train_lanes(prepared, plain, SPEC, CohortRecorder(interrupt_at=25))
    others = train_lanes(prepared, CONFIGS, SPEC, CohortRecorder(interrupt_at=25))

    together = train_lanes(
        prepared, plain + CONFIGS, SPEC, states=stopped.states([0, 1]) + others.states(range(5))
    )

    for lane, config in enumerate(plain):
        single = train(prepared, SPEC, config)
        found = stopped.values(lane) + together.values(lane)
        assert found == pytest.approx(single.values, rel=1e-10)


@given(
    name=st.sampled_from(["ema", "swa"]),
    start=st.floats(0, 0.99),
    interval=st.integers(1, 9),
    decay=st.floats(0.01, 0.99),
    total=st.integers(1, 40),
    cut=st.integers(0, 40),
)
def test_weights_are_taken_in_as_the_average_of_a_model_takes_them(
    name: str, start: float, interval: int, decay: float, total: int, cut: int
) -> None:
    own = {"start": start, "interval": interval} | ({"decay": decay} if name == "ema" else {})
    config = averaged(make_config(), name, **own)
    model = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    average = build_average(name, config.average_values, model)
    assert average is not None
    averages = AveragingTimes([make_config(), config], total)
    cut = min(cut, total)
    shares = [*averages.shares(0, cut), *averages.shares(cut, total)]

    ours = torch.zeros(1, 1, dtype=torch.float64)
    for step, (nothing, share) in enumerate(shares):
        with torch.no_grad():
            model.weight.fill_((step * 7919 % 101) / 101)
        ours.lerp_(model.weight.detach(), share)
        average.follow(step + 1, total)
        assert nothing == 0
        assert averages.begun(step + 1) == ([1] if average.count else [])
        if average.count:
            theirs = average.state_dict()["weights"]["weight"]
            assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
