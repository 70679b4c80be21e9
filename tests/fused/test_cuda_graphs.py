from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._triton import has_triton

from tests.conftest import ON_DEVICES
from tests.fused.cohorts import (
    Blobs,
    CohortRecorder,
    Droopy,
    Normed,
    Trained,
    check_same,
    train_lanes,
)
from tests.training.trials import make_config, make_spec
from tuner.fused.cohort import Cohort
from tuner.fused.cuda_graphs import CapturedStep, Record, Step, _Recorder
from tuner.fused.lane import LaneStart
from tuner.fused.model import FusedModel
from tuner.training.prepared_workload import PreparedWorkload
from tuner.training.workload import Batch

CONFIGS = [
    make_config("adam"),
    make_config("muon"),
    make_config("momentum", schedule="cosine"),
    make_config("yellowfin"),
    make_config("lookahead(adamw)"),
]


def take_down(function: Callable[[], Tensor]) -> tuple[Callable[[], object], Tensor]:
    """Stands in for CUDA where there is none: takes down a function, and calls it again.

    As with CUDA, taking down does nothing, and what is read again are the tensors taken down.
    """
    result = torch.empty(0, dtype=torch.float64)

    def play() -> None:
        losses = function()
        result.resize_(losses.shape).copy_(losses)

    return play, result


class Notes:
    """Counts what is recorded and replayed: by CUDA on a GPU of it, by its stand-in elsewhere."""

    def __init__(self, device: str = "cpu") -> None:
        self._record = take_down if device == "cpu" else _Recorder(torch.device(device))
        self.taken = self.played = 0

    def __call__(self, function: Callable[[], Tensor]) -> tuple[Callable[[], object], Tensor]:
        self.taken += 1
        replay, result = self._record(function)

        def play() -> None:
            self.played += 1
            replay()

        return play, result


def record_by(monkeypatch: pytest.MonkeyPatch, record: Record | None) -> None:
    """Has steps recorded by something else from now on, or taken one by one."""

    def capture(step: Step, device: torch.device) -> Step:
        return step if record is None else CapturedStep(step, record)

    monkeypatch.setattr("tuner.fused.model.captured", capture)


def bench_on(workload: Blobs, device: str = "cpu") -> PreparedWorkload:
    return PreparedWorkload.prepare(workload, torch.device(device), "float64")


def everything(trained: Trained) -> list[object]:
    lanes = range(len(trained.outcomes))
    return [[trained.values(lane), trained.logged(lane)] for lane in lanes]


def check_alike(found: Trained, expected: Trained, device: str) -> None:
    """Sees that replayed steps have trained as steps do: on the CPU they are the same calls."""
    if device == "cpu":
        assert everything(found) == everything(expected)
    for lane in range(len(found.outcomes)):
        assert found.values(lane) == pytest.approx(expected.values(lane), rel=1e-9, abs=1e-9)
    assert found.outcomes == expected.outcomes


@ON_DEVICES
@pytest.mark.parametrize("workload", [Blobs(), Droopy(), Normed()])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_replayed_steps_are_those_taken_one_by_one(
    workload: Blobs, accumulate: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(steps=40, evaluations=4, train={"accumulate": accumulate})
    prepared, prune_at, notes = bench_on(workload, device), {1: 10, 3: 20}, Notes(device)
    record_by(monkeypatch, None)
    plain = train_lanes(prepared, CONFIGS, spec, CohortRecorder(prune_at))

    record_by(monkeypatch, notes)
    replayed = train_lanes(prepared, CONFIGS, spec, CohortRecorder(prune_at))

    check_alike(replayed, plain, device)
    # Recorded at first, and once each lane has been dropped; three steps are taken before.
    assert (notes.taken, notes.played) == (3, 40 - 3 * 3)


@ON_DEVICES
def test_the_next_cohort_is_recorded_anew(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = Notes(device)
    record_by(monkeypatch, notes)
    spec = make_spec(steps=12, evaluations=3)
    model = FusedModel(bench_on(Blobs(), device), spec)
    starts = [LaneStart(config) for config in CONFIGS]
    cohorts = [Cohort(model, starts, CohortRecorder()) for _ in range(2)]
    for cohort in cohorts:
        cohort.train()
    first, second = (cohort.rows() for cohort in cohorts)
    torch.testing.assert_close(first, second, rtol=0, atol=0 if device == "cpu" else 1e-9)
    assert notes.taken == 2


def test_nothing_is_recorded_of_lanes_that_soon_change(monkeypatch: pytest.MonkeyPatch) -> None:
    notes = Notes()
    record_by(monkeypatch, notes)
    spec = make_spec(steps=9, evaluations=3)
    train_lanes(bench_on(Blobs()), CONFIGS[:3], spec, CohortRecorder({0: 3, 1: 6}))
    assert notes.taken == 0


def test_steps_that_cannot_be_captured_are_taken_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(function: Callable[[], Tensor]) -> tuple[Callable[[], object], Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    record_by(monkeypatch, refuse)
    prepared, spec = bench_on(Blobs()), make_spec(steps=20, evaluations=4)
    with pytest.warns(UserWarning, match="not permitted when stream is capturing. To have") as told:
        fused = train_lanes(prepared, CONFIGS[:1], spec)
    assert len(told) == 1
    check_same(fused, prepared, spec, CONFIGS[:1])


# On the device itself.


class Distant(Droopy):
    """Brings a number from the CPU at every step, which no recording allows."""

    def loss(self, model: nn.Module, batch: Batch) -> Any:
        return super().loss(model, batch) * torch.tensor(0.5).to(batch[0].device)


@pytest.mark.cuda
def test_what_cuda_cannot_record_is_taken_as_it_is_and_draws_on() -> None:
    prepared, spec = bench_on(Distant(), "cuda"), make_spec(steps=40, evaluations=4)
    with pytest.warns(UserWarning, match="goes on without CUDA graphs"):
        there = train_lanes(prepared, CONFIGS[:1], spec)
    # A recording that has failed leaves the generator in order for those that follow.
    again = train_lanes(bench_on(Droopy(), "cuda"), CONFIGS[:1], spec)
    assert there.outcomes == again.outcomes
    assert all(torch.isfinite(torch.tensor(there.values(0))))


@pytest.mark.cuda
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("workload", [Blobs(), Normed()])
def test_lanes_on_a_gpu_train_as_on_the_cpu(workload: Blobs, *, compiled: bool) -> None:
    if compiled and not has_triton():
        pytest.skip("Triton is not here, with which torch compiles for GPUs")
    spec, prune_at = make_spec(steps=40, evaluations=4), {2: 20}
    configs = [config for config in CONFIGS if config.optimizer != "muon"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        there = train_lanes(
            bench_on(workload, "cuda"), configs, spec, CohortRecorder(prune_at), compiled=compiled
        )
    here = train_lanes(bench_on(workload), configs, spec, CohortRecorder(prune_at))
    for lane in range(len(configs)):
        torch.testing.assert_close(there.values(lane), here.values(lane), rtol=1e-6, atol=1e-9)
    assert there.outcomes == here.outcomes
