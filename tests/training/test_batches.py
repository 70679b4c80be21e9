"""Batches of every size: all examples, a single one, and batches computed in parts."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

from tests.training.loops import Net, evaluate, points
from tests.training.trials import (
    CPU,
    Droopy,
    Line,
    Recorder,
    Trial,
    check_continued,
    make_config,
    make_spec,
    prepare_workload,
    stop_and_go,
    train,
)
from tuner.errors import SpecError, WorkloadError
from tuner.training.loop import split
from tuner.training.prepared_workload import PreparedWorkload
from tuner.training.rehearsal import prepare_checked, probe
from tuner.training.run import Run
from tuner.training.workload import Batch, Data

FULL = dataclasses.replace(make_config(lr=0.05), batch_size="full")


class Shuffled(Line):
    """The same points in another order."""

    def data(self) -> Data:
        data = super().data()
        order = torch.randperm(self.train_rows, generator=torch.Generator().manual_seed(1))
        return dataclasses.replace(data, train=tuple(t[order] for t in data.train))


class Normed(Line):
    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))


class Summed(Line):
    def loss(self, model: nn.Module, batch: Batch) -> Any:
        return mse_loss(model(batch[0]), batch[1], reduction="sum")


# Full batches.


@pytest.mark.parametrize(
    ("length", "steps", "evaluated"),
    [
        ({"epochs": 8}, 8, [2, 4, 6, 8]),
        ({"epochs": 2.5}, 2, [1, 2]),
        ({"examples": 1000}, 5, [2, 3, 4, 5]),
        ({"steps": 6}, 6, [2, 3, 5, 6]),
    ],
)
def test_an_epoch_of_a_full_batch_is_one_step(
    length: dict[str, float], steps: int, evaluated: list[int]
) -> None:
    trial = train(prepare_workload(Line()), make_spec(budget=length | {"evaluations": 4}), FULL)
    assert (trial.run.taken, trial.run.batch_size, trial.run.epoch_steps) == (steps, 200, 1)
    assert trial.steps_evaluated == evaluated


def test_a_trial_of_few_steps_is_compared_where_others_are_as_far() -> None:
    trial = train(
        prepare_workload(Line()), make_spec(budget={"epochs": 3, "evaluations": 10}), FULL
    )
    assert [(e.index, e.step) for e in trial.evaluations] == [(3, 1), (6, 2), (10, 3)]


def test_a_full_batch_does_not_depend_on_the_order_of_examples_or_the_seed_of_the_order() -> None:
    spec = make_spec(30, 1, train={"precision": "float64"})
    trials = [train(prepare_workload(w, "float64"), spec, FULL) for w in (Line(), Shuffled())]
    torch.testing.assert_close(*(t.parameters for t in trials), rtol=1e-12, atol=1e-12)


def test_a_full_batch_is_a_batch_of_as_many() -> None:
    counted = dataclasses.replace(FULL, batch_size=200)
    full, same = (
        train(prepare_workload(Line()), config=FULL),
        train(prepare_workload(Line()), config=counted),
    )
    assert torch.equal(full.parameters, same.parameters)


def test_a_trial_of_full_batches_continues_as_if_never_stopped() -> None:
    prepared, spec = prepare_workload(Droopy()), make_spec(budget={"epochs": 12, "evaluations": 4})
    whole = train(prepared, spec, FULL)
    check_continued(whole, *stop_and_go(prepared, 7, spec, FULL))


def own_loop(*, measures: bool = True, batch_size: int | None = None) -> Any:
    def loop(run: Run) -> None:
        data = TensorDataset(*points())
        if measures:
            run.measure(examples=len(data))
        loader = DataLoader(data, batch_size=batch_size or run.batch_size, shuffle=True)
        model = Net()
        optimizer = run.optimizer(model)
        schedule = run.schedule(optimizer, loader)
        for step, (x, y) in run.steps(loader):
            optimizer.zero_grad()
            mse_loss(model(x), y).backward()
            optimizer.step()
            schedule.step()
            run.report(step, val_loss=evaluate(model))

    return loop


@pytest.mark.parametrize("length", [{"epochs": 5}, {"examples": 320}, {"steps": 5}])
def test_an_own_loop_says_how_many_examples_are_all(length: dict[str, int]) -> None:
    trial = train(own_loop(), make_spec(budget=length | {"evaluations": 1}), FULL)
    assert (trial.run.taken, trial.run.batch_size) == (5, 64)


def test_an_own_loop_that_does_not_say_is_told_to() -> None:
    with pytest.raises(SpecError, match=r"call run\.measure\(examples=len\(dataset\)\) first"):
        train(own_loop(measures=False), make_spec(), FULL)


def test_an_own_loop_of_smaller_batches_is_not_taken_for_full() -> None:
    with pytest.raises(SpecError, match=r'"full" makes an epoch one step, but .* has 4 batches'):
        train(own_loop(batch_size=16), make_spec(), FULL)


def test_what_an_own_loop_says_of_examples_changes_nothing_where_batches_are_counted() -> None:
    config = make_config(batch_size=10)
    trial = train(own_loop(), make_spec(budget={"epochs": 2}), config)
    assert (trial.run.taken, trial.run.batch_size) == (14, 10)


def unmeasured(run: Run) -> None:
    own_loop(measures=False)(run)


def test_an_own_loop_is_rehearsed_with_full_batches_where_they_are_searched() -> None:
    study = {"name": "s", "workload": f"{__name__}:unmeasured"}
    spec = make_spec(study=study, train={"batch_size": {"choices": [16, "full"]}})
    with pytest.raises(SpecError, match=r"call run\.measure"):
        prepare_checked(spec, CPU)
    counted = make_spec(study=study, train={"batch_size": {"choices": [16, 32]}})
    assert callable(prepare_checked(counted, CPU))


def unmeasured_average(run: Run) -> None:
    own_loop()(run)


def test_an_own_loop_is_rehearsed_with_every_average_that_is_searched() -> None:
    study = {"name": "s", "workload": f"{__name__}:unmeasured_average"}
    spec = make_spec(study=study, train={"average": {"choices": ["none", "swa"]}})
    with pytest.raises(WorkloadError, match=r"average = 'swa'.*with run\.evaluation"):
        prepare_checked(spec, CPU)


# Batches of one.


def test_batches_of_one_train() -> None:
    trial = train(
        prepare_workload(Line()), make_spec(60, 2), make_config("sgd", batch_size=1, lr=0.05)
    )
    assert trial.run.batch_size == 1
    assert trial.values[-1] < trial.values[0]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"batch_size": 1}, "examples 1 at a time"),
        ({"batch_size": {"choices": [32, 1]}}, "examples 1 at a time"),
        ({"batch_size": 8, "accumulate": 5}, "examples 1 at a time"),
    ],
)
def test_batch_norm_is_refused_what_it_cannot_train_on(table: dict[str, Any], said: str) -> None:
    with pytest.raises(WorkloadError, match=f"has BatchNorm, which cannot train on {said}"):
        probe(prepare_workload(Normed()), make_spec(train=table))
    assert probe(prepare_workload(Normed()), make_spec(train={"batch_size": 8, "accumulate": 4}))


def normed_loop(run: Run) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    loader = DataLoader(TensorDataset(*points()), batch_size=run.batch_size)
    optimizer = run.optimizer(model)
    for step, (x, y) in run.steps(loader):
        optimizer.zero_grad()
        mse_loss(model(x), y).backward()
        optimizer.step()
        run.report(step, val_loss=evaluate(model))


@pytest.mark.parametrize("sizes", [1, {"choices": [16, 1]}])
def test_batch_norm_in_an_own_loop_is_refused_batches_of_one(sizes: Any) -> None:
    study = {"name": "s", "workload": f"{__name__}:normed_loop"}
    with pytest.raises(WorkloadError, match="BatchNorm, which cannot train on examples in batches"):
        prepare_checked(make_spec(study=study, train={"batch_size": sizes}), CPU)


# Batches in parts.


@settings(max_examples=50)
@given(rows=st.integers(1, 40), parts=st.integers(1, 50))
def test_parts_make_up_the_batch_and_their_shares_one(rows: int, parts: int) -> None:
    batch = (torch.arange(rows), torch.arange(rows) * 2.0)
    pieces = list(split(batch, parts))
    assert len(pieces) == min(rows, parts)
    assert torch.equal(torch.cat([part[0] for part, _ in pieces]), batch[0])
    assert all(torch.equal(part[0] * 2.0, part[1]) for part, _ in pieces)
    assert sum(share for _, share in pieces) == pytest.approx(1.0, rel=1e-12)
    sizes = [len(part[0]) for part, _ in pieces]
    assert max(sizes) - min(sizes) <= 1


def trained(prepared: PreparedWorkload, accumulate: int, config: Any, **table: Any) -> Trial:
    spec = make_spec(20, 2, train={"precision": "float64", "accumulate": accumulate, **table})
    return train(prepared, spec, config)


@pytest.mark.parametrize("parts", [2, 3, 7, 32, 1000])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "muon", "lbfgs"])
def test_a_batch_in_parts_trains_as_the_whole(optimizer: str, parts: int) -> None:
    class Curved(Line):
        def model(self) -> nn.Module:
            return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))

    few: dict[str, Any] = {"max_iter": 4} if optimizer == "lbfgs" else {}
    prepared, config = prepare_workload(Curved(), "float64"), make_config(optimizer, lr=0.05, **few)
    whole, accumulated = trained(prepared, 1, config), trained(prepared, parts, config)
    torch.testing.assert_close(whole.parameters, accumulated.parameters, rtol=1e-8, atol=1e-10)
    assert accumulated.run.taken == whole.run.taken == 20
    assert accumulated.values == pytest.approx(whole.values, rel=1e-8)
    logged = [[value for *_, value in t.run.state.take_logged()] for t in (whole, accumulated)]
    assert logged[1] == pytest.approx(logged[0], rel=1e-8)


def test_gradients_are_clipped_after_all_parts() -> None:
    prepared, config = prepare_workload(Line(), "float64"), make_config("sgd", lr=1.0)
    whole, parts = (trained(prepared, k, config, grad_clip=0.01) for k in (1, 5))
    torch.testing.assert_close(whole.parameters, parts.parameters, rtol=1e-10, atol=1e-12)


def test_batch_norm_sees_each_part_for_itself() -> None:
    """Its statistics are those of a part, so it trains otherwise, and counts every part."""
    prepared = prepare_workload(Normed(), "float64")
    whole, parts = (trained(prepared, k, make_config(lr=0.05)) for k in (1, 4))
    states = [trial.run.state.state_dict() for trial in (whole, parts)]
    counts = [state["models"][0]["1.num_batches_tracked"] for state in states]
    assert [int(count) for count in counts] == [20, 80]
    assert not torch.allclose(whole.parameters[:8], parts.parameters[:8], rtol=1e-3)


def test_a_trial_of_parts_continues_as_if_never_stopped() -> None:
    prepared, spec = prepare_workload(Droopy()), make_spec(train={"accumulate": 3})
    check_continued(train(prepared, spec), *stop_and_go(prepared, 17, spec))


def test_no_more_than_a_part_is_computed_at_once() -> None:
    class Watching(Line):
        rows: set[int] = set()  # noqa: RUF012 (of one test)

        def loss(self, model: nn.Module, batch: Batch) -> Tensor:
            self.rows.add(len(batch[0]))
            loss: Tensor = super().loss(model, batch)
            return loss

    train(
        prepare_workload(Watching()), make_spec(3, 1, train={"accumulate": 3}), recorder=Recorder()
    )
    assert Watching.rows - {50} == {10, 11}


def test_a_loss_that_is_a_sum_is_refused_in_parts() -> None:
    with pytest.raises(SpecError, match=r"train\.accumulate: .* so it is no mean over"):
        probe(prepare_workload(Summed()), make_spec(train={"accumulate": 4}))
    assert probe(prepare_workload(Summed()), make_spec())
