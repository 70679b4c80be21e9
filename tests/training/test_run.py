"""What a training loop may do with its run, rightly and wrongly."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

import tuner
from tests.training.loops import (
    BATCH,
    EPOCH,
    EXAMPLES,
    Net,
    batches_of,
    by_step,
    over_loader,
    points,
)
from tests.training.trials import (
    CPU,
    Recorder,
    Trial,
    make_config,
    make_spec,
    parameters_of,
    stop_and_go,
    train,
)
from tuner.domain.catalog.dimensions import Choice, Float, Int, Value
from tuner.domain.groups import GroupValues
from tuner.errors import SpecError, WorkloadError
from tuner.training.loop import run_trial
from tuner.training.reporting import StaleCheckpointError
from tuner.training.run import Run

SPEC = make_spec(20, 4)
"""Evaluated after 5, 10, 15 and 20 steps."""


def train_with(body: Callable[[Run, int], Any], recorder: Recorder | None = None) -> Trial:
    """Trains by a loop that does nothing but this at every step."""

    def loop(run: Run) -> None:
        optimizer = run.optimizer(nn.Linear(1, 1))
        for step in run.steps():
            optimizer.step()
            body(run, step)

    return train(loop, SPEC, recorder=recorder)


# What it knows.


def test_it_knows_what_to_train_with() -> None:
    seen: list[Any] = []

    def loop(run: Run) -> float:
        seen.extend((run.seed, run.device, run.batch_size, run.budget.steps, run.train.grad_clip))
        return 1.0

    train(loop, make_spec(33, search={"seed": 5}, train={"grad_clip": 0.5}))
    assert seen == [5, CPU, 32, 33, 0.5]


def test_every_source_of_randomness_is_seeded() -> None:
    draws: list[Any] = []

    def loop(run: Run) -> float:
        import random

        draws.append((random.random(), np.random.rand(), torch.rand(()).item()))  # noqa: S311
        return 1.0

    for seed in (0, 0, 1):
        train(loop, make_spec(search={"seed": seed}))
    assert draws[0] == draws[1]
    assert len({value for draw in draws[1:] for value in draw}) == 6


# Steps and reports.


def test_steps_count_from_zero() -> None:
    seen: list[int] = []
    train_with(lambda run, step: seen.append(step))
    assert seen == list(range(20))


def test_steps_go_on_where_a_checkpoint_left_off() -> None:
    seen: list[int] = []

    def loop(run: Run) -> None:
        run.optimizer(nn.Linear(1, 1))
        seen.extend(run.steps())

    _, continued = stop_and_go(loop, 7, SPEC)
    assert seen == [*range(7), *range(7, 20)]
    assert continued.run.taken == 20


def test_due_tells_where_the_budget_asks_for_an_evaluation() -> None:
    due: list[int] = []

    def body(run: Run, step: int) -> None:
        if run.due(step):
            due.append(step)
            run.report(step, val_loss=1.0)

    assert train_with(body).steps_evaluated == [5, 10, 15, 20]
    assert due == [4, 9, 14, 19]


def test_an_evaluation_is_due_until_it_has_been_reported() -> None:
    def body(run: Run, step: int) -> None:
        if step in (6, 12):
            run.report(step, val_loss=step)

    trial = train_with(body)
    assert [(e.index, e.step) for e in trial.evaluations] == [(1, 7), (2, 13)]


def test_reporting_at_every_step_counts_where_it_is_due() -> None:
    trial = train_with(lambda run, step: run.report(step, val_loss=step))
    assert trial.steps_evaluated == [5, 10, 15, 20]
    assert trial.values == [4.0, 9.0, 14.0, 19.0]


def test_a_metric_may_be_a_tensor_or_numpy_s() -> None:
    values = (torch.tensor(2.0, requires_grad=True), np.float32(2.0), np.float64(2.0), 2)
    for value in values:

        def body(run: Run, step: int, value: Any = value) -> None:
            run.report(step, val_loss=value)

        trial = train_with(body)
        assert trial.values == [2.0] * 4


@pytest.mark.parametrize(
    ("value", "given"),
    [
        (torch.zeros(3), r"of shape \(3,\)"),
        (np.zeros((2, 2)), r"of shape \(2, 2\)"),
        ([0.5], "of type list"),
        (None, "of type NoneType"),
    ],
)
@pytest.mark.parametrize("name", ["val_loss", "accuracy"])
def test_a_metric_that_is_no_single_number_is_named(value: Any, given: str, name: str) -> None:
    metrics = {"val_loss": 1.0, name: value}
    message = rf"{name} is {given}, but .*: give its mean, such as {name}\.mean\(\)"
    with pytest.raises(WorkloadError, match=message):
        train_with(lambda run, step: run.report(step, **metrics))


def test_other_metrics_go_along() -> None:
    trial = train_with(lambda run, step: run.report(step, val_loss=1.0, accuracy=0.5))
    assert trial.evaluations[0].metrics == {"val_loss": 1.0, "accuracy": 0.5}


@pytest.mark.parametrize("metrics", [{"loss": 1.0}, {}])
def test_a_report_without_the_study_s_metric_is_refused(metrics: dict[str, float]) -> None:
    with pytest.raises(WorkloadError, match=r"study\.metric is 'val_loss': report it too"):
        train_with(lambda run, step: run.report(step, **metrics))


@pytest.mark.parametrize("value", [math.nan, math.inf, torch.tensor(math.nan)])
def test_a_metric_that_is_no_number_ends_the_trial(value: Any) -> None:
    trial = train_with(lambda run, step: run.report(step, val_loss=value if step > 11 else 1.0))
    # A number is looked at whenever it is given; to look at a tensor means to wait for the device.
    expected = 15 if isinstance(value, torch.Tensor) else 13
    assert (trial.outcome.ending, trial.outcome.diverged_step) == ("diverged", expected)


# Loops that count their steps themselves.


def own_count(run: Run) -> None:
    optimizer = run.optimizer(nn.Linear(1, 1))
    schedule = run.schedule(optimizer)
    for step in range(20):
        optimizer.step()
        schedule.step()
        run.log(lr=schedule.get_last_lr()[0])
        run.report(step, val_loss=step)


def test_a_loop_may_count_its_steps_itself() -> None:
    trial = train(own_count, SPEC)
    assert trial.outcome.ending == "complete"
    assert trial.steps_evaluated == [5, 10, 15, 20]
    assert trial.run.taken == 20


def test_its_schedule_follows_its_own_steps() -> None:
    def counted(run: Run) -> None:
        optimizer = run.optimizer(nn.Linear(1, 1))
        schedule = run.schedule(optimizer)
        for step in run.steps():
            optimizer.step()
            schedule.step()
            run.log(lr=schedule.get_last_lr()[0])
            run.report(step, val_loss=step)

    own, theirs = (train(loop, SPEC).run.state.take_logged() for loop in (own_count, counted))
    assert own == theirs
    assert len({rate for _, _, rate in own}) > 15


@pytest.mark.parametrize(
    ("stop", "ending"), [("prune_at", "pruned"), ("interrupt_at", "interrupted")]
)
def test_it_is_stopped_at_a_report(stop: str, ending: str) -> None:
    stops: dict[str, Any] = {stop: 10}
    trial = train(own_count, SPEC, recorder=Recorder(**stops))
    assert trial.outcome.ending == ending
    assert trial.run.taken == 10
    assert not trial.run.state.resumable


def nested(run: Run) -> float:
    """Two epochs of ten steps as a Trainer takes them, with a report after each."""
    optimizer = run.optimizer(nn.Linear(1, 1))
    for epoch in range(2):
        for _ in range(10):
            with contextlib.suppress(Exception):  # as Trainers do around their callbacks
                optimizer.step()
        run.report(epoch * 10 + 9, val_loss=1.0)
    return 1.0


def test_each_step_of_its_optimizer_says_that_it_lives() -> None:
    trial = train(nested, SPEC)
    assert trial.outcome.ending == "complete"
    assert trial.recorder.steps == [*range(10), 10, *range(10, 20), 20]


@pytest.mark.parametrize("at", [0, 3, 14])
def test_it_is_interrupted_at_the_next_step_of_its_optimizer(at: int) -> None:
    trial = train(nested, SPEC, recorder=Recorder(interrupt_at=at))
    assert trial.outcome.ending == "interrupted"
    assert trial.run.taken == at
    assert not trial.run.state.resumable


def test_each_computation_of_a_closure_says_that_it_lives() -> None:
    def loop(run: Run) -> float:
        model = nn.Linear(1, 1)
        optimizer = run.optimizer(model)

        def closure() -> Any:
            optimizer.zero_grad()
            loss = (model(torch.ones(1, 1)) - 3).square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        calls.append(run.taken)
        return 1.0

    calls: list[int] = []
    recorder = train(loop, SPEC, make_config("lbfgs", max_iter=4)).recorder
    assert recorder.steps == list(range(calls[0]))


def test_a_loop_over_steps_tells_of_each_step_once() -> None:
    trial = train_with(lambda run, step: run.report(step, val_loss=1.0))
    assert trial.recorder.steps == list(range(1, 20))


def test_what_is_logged_says_that_the_trial_lives() -> None:
    def loop(run: Run) -> float:
        for _ in range(3):
            run.log(reward=1.0)
        return 1.0

    trial = train(loop, SPEC, recorder=Recorder(interrupt_at=0))
    assert trial.recorder.steps == [0, 0, 0]
    assert trial.outcome.ending == "complete"  # a number that was noted ends nothing


def test_it_needs_a_budget_of_steps() -> None:
    spec = make_spec(budget={"epochs": 2})

    def reporting(run: Run) -> None:
        run.report(0, val_loss=1.0)

    for loop in (own_count, reporting, by_step):
        with pytest.raises(SpecError, match=r"need to know an epoch's length"):
            train(loop, spec)


# How a loop ends.


def test_an_early_return_completes_the_trial() -> None:
    def loop(run: Run) -> float | None:
        for step in run.steps():
            run.report(step, val_loss=step)
            if step == 11:
                return 0.25
        return None

    trial = train(loop, SPEC)
    assert (trial.outcome.ending, trial.outcome.value) == ("complete", 0.25)
    assert trial.run.taken == 12


@pytest.mark.parametrize(
    "value", [0.5, np.float32(0.5), torch.tensor([0.5], requires_grad=True), None]
)
def test_a_loop_returns_a_number_or_nothing(value: Any) -> None:
    trial = train(lambda run: value, SPEC)
    assert trial.outcome.value == (None if value is None else 0.5)


@pytest.mark.parametrize("value", ["0.5", [0.5], {"val_loss": 0.5}, torch.zeros(2), 1j])
def test_anything_else_is_refused(value: Any) -> None:
    with pytest.raises(WorkloadError, match="return the study's metric as a number"):
        train(lambda run: value, SPEC)


def test_a_vector_that_is_returned_is_named() -> None:
    with pytest.raises(WorkloadError, match=r"returned val_loss of shape \(2,\).*as its mean"):
        train(lambda run: torch.zeros(2), SPEC)


@pytest.mark.parametrize("value", [math.nan, -math.inf, torch.tensor(math.nan)])
def test_returning_no_number_is_a_divergence(value: Any) -> None:
    def loop(run: Run) -> Any:
        list(run.steps())
        return value

    outcome = train(loop, SPEC).outcome
    assert (outcome.ending, outcome.diverged_step, outcome.value) == ("diverged", 20, None)


@pytest.mark.parametrize("caught", [tuner.Pruned, Exception])
def test_a_loop_that_catches_its_pruning_is_over_at_the_next_step(caught: type[Exception]) -> None:
    after: list[int] = []

    def body(run: Run, step: int) -> None:
        try:
            run.report(step, val_loss=1.0)
        except caught:
            after.append(step)

    trial = train_with(body, Recorder(prune_at=10))
    assert (trial.outcome.ending, trial.run.taken) == ("pruned", 10)
    assert after == [9]


def test_a_loop_that_returns_after_its_pruning_is_pruned() -> None:
    def loop(run: Run) -> float:
        with contextlib.suppress(tuner.Pruned):
            by_step(run)
        return 0.1

    outcome = train(loop, SPEC, recorder=Recorder(prune_at=10)).outcome
    assert (outcome.ending, outcome.value) == ("pruned", None)


def test_a_loop_may_tidy_up_when_it_is_pruned() -> None:
    tidied: list[bool] = []

    def loop(run: Run) -> None:
        try:
            by_step(run)
        finally:
            tidied.append(True)

    assert train(loop, SPEC, recorder=Recorder(prune_at=10)).outcome.ending == "pruned"
    assert tidied == [True]


def test_an_interruption_passes_a_loop_that_catches_every_exception() -> None:
    def body(run: Run, step: int) -> None:
        try:
            run.report(step, val_loss=1.0)
        except Exception:  # noqa: BLE001 (as users do)
            return

    trial = train_with(body, Recorder(interrupt_at=7))
    assert (trial.outcome.ending, trial.run.taken) == ("interrupted", 7)
    assert trial.run.state.resumable


def test_what_a_loop_raises_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        train_with(lambda run, step: 1 / 0)


# What it keeps.


def test_what_is_logged_is_kept_with_its_step_and_read_once() -> None:
    value = torch.zeros(())

    def body(run: Run, step: int) -> None:
        if step < 2:
            run.log(a=value, b=step)
            value.add_(1.0)  # the same tensor, reused

    run = train_with(body).run
    assert run.state.take_logged() == [(1, "a", 0.0), (1, "b", 0.0), (2, "a", 1.0), (2, "b", 1.0)]
    assert run.state.take_logged() == []


def test_a_checkpoint_on_demand_is_written_when_the_step_is_over() -> None:
    def body(run: Run, step: int) -> None:
        if step == 6:
            run.checkpoint()

    trial = train_with(body)
    assert trial.recorder.saved_at == [7]


class Notes:
    """Something with a state of its own."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if "seen" not in state:
            raise KeyError("seen")
        self.seen = state["seen"]


def noting(run: Run) -> None:
    notes = Notes()
    run.checkpoint(notes=notes)
    optimizer = run.optimizer(nn.Linear(1, 1))
    for step in run.steps():
        optimizer.step()
        notes.seen.append(step)
        run.report(step, val_loss=len(notes.seen))


def test_an_object_of_the_loop_s_own_is_kept_over_an_interruption() -> None:
    stopped, continued = stop_and_go(noting, 7, SPEC)
    assert stopped.recorder.saved_at == []  # naming objects asks for no checkpoint
    assert continued.values[-1] == 20


class Unrestorable:
    """Something whose state goes one way."""

    def state_dict(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize("given", [5, None, torch.zeros(2), Unrestorable()])
def test_an_object_without_a_state_is_refused_at_once(given: Any) -> None:
    def loop(run: Run) -> None:
        run.checkpoint(best=given)

    with pytest.raises(
        WorkloadError, match=r"given best, a \w+: what it keeps needs state_dict\(\)"
    ):
        train(loop, SPEC)


def test_an_object_that_cannot_take_its_state_back_makes_the_checkpoint_stale() -> None:
    state = train(noting, SPEC, recorder=Recorder(interrupt_at=7)).run.state.state_dict()
    state["objects"]["notes"] = {}
    with pytest.raises(StaleCheckpointError, match="does not fit Notes"):
        train(noting, SPEC, state=state)


def test_a_loop_that_builds_more_than_its_checkpoint_holds_makes_it_stale() -> None:
    def two(run: Run) -> None:
        for _ in range(2):
            run.optimizer(Net())
        list(run.steps())

    def one(run: Run) -> None:
        run.optimizer(Net())
        list(run.steps())

    state = train(one, SPEC, recorder=Recorder(interrupt_at=7)).run.state.state_dict()
    with pytest.raises(StaleCheckpointError, match="fewer models"):
        train(two, SPEC, state=state)


def test_the_time_within_an_evaluation_is_no_training() -> None:
    alive: list[int] = []

    def body(run: Run, step: int) -> None:
        with run.evaluation() as tell:
            tell()
        alive.append(run.taken)

    trial = train_with(body)
    assert trial.run.timing.eval_s > 0
    assert trial.recorder.steps == sorted([*alive, *range(1, 20)])


# Hyperparameters of its own.


def test_what_it_asks_for_is_drawn_once_and_kept_over_an_interruption() -> None:
    def loop(run: Run) -> None:
        optimizer = run.optimizer(nn.Linear(1, 1))
        for step in run.steps():
            optimizer.step()
            values = (
                run.suggest_float("width", 1, 9, log=True),
                run.suggest_int("depth", 1, 4),
                run.suggest_categorical("kind", ["a", "b"]),
            )
            run.report(step, val_loss=sum(map(ord, str(values))))
            seen.append(values)

    seen: list[Any] = []
    drawn: dict[str, Value] = {"width": 3.0, "depth": 2, "kind": "b"}
    recorder = Recorder(interrupt_at=7, values=dict(drawn))
    stopped = train(loop, SPEC, recorder=recorder)
    assert recorder.suggested == {
        "width": Float(low=1.0, high=9.0, log=True),
        "depth": Int(low=1, high=4),
        "kind": Choice(choices=("a", "b")),
    }
    continued = train(loop, SPEC, state=stopped.run.state.state_dict())
    assert continued.recorder.suggested == {}
    assert set(seen) == {(3.0, 2, "b")}


def test_what_was_stored_with_the_trial_is_not_drawn_again() -> None:
    from dataclasses import replace

    def loop(run: Run) -> float:
        return run.suggest_float("width", 1, 9)

    config = replace(make_config(), own={"width": 4.5})
    assert train(loop, SPEC, config).outcome.value == 4.5


@pytest.mark.parametrize("name", ["optimizer", "schedule", "batch_size", "lr", "beta1", "adam.lr"])
def test_a_name_that_means_something_else_is_refused(name: str) -> None:
    with pytest.raises(WorkloadError, match=rf"given the name '{name}': use a plain word"):
        train(lambda run: run.suggest_float(name, 0, 1), SPEC)


@pytest.mark.parametrize("sampler", ["qmc", "gp", "cmaes"])
def test_what_a_loop_asks_for_is_refused_by_samplers_of_one_space(sampler: str) -> None:
    one = {"optimizers": ["momentum"], "schedules": ["constant"], "breadth": 2}
    fixed = {"momentum": {"weight_decay": 0.0}}
    warmup = {"constant": {"warmup": 0.0}}
    spec = make_spec(search={"sampler": sampler}, space=one, optimizer=fixed, schedule=warmup)
    with pytest.raises(SpecError, match="'width' is asked for by the training loop"):
        train(lambda run: run.suggest_float("width", 1, 2), spec, make_config("momentum"))


def test_a_hyperparameter_of_an_optimizer_not_searched_is_free() -> None:
    spec = make_spec(space={"optimizers": ["sgd"]})
    recorder = Recorder(values={"beta1": 0.5})
    trial = train(lambda run: run.suggest_float("beta1", 0, 1), spec, make_config("sgd"), recorder)
    assert trial.outcome.value == 0.5


# Schedules and loaders.


@pytest.mark.parametrize(("direction", "falls"), [("minimize", True), ("maximize", False)])
def test_a_schedule_that_follows_the_metric_hears_of_it(direction: str, falls: bool) -> None:
    def loop(run: Run) -> None:
        optimizer = run.optimizer(nn.Linear(1, 1))
        schedule = run.schedule(optimizer)
        for step in run.steps():
            optimizer.step()
            schedule.step()
            run.report(step, val_loss=float(step))
            run.log(lr=optimizer.param_groups[0]["lr"])

    spec = make_spec(
        20, 20, study={"name": "s", "workload": "models.digits:Digits", "direction": direction}
    )
    config = make_config(schedule="plateau", warmup=0.0, lr=0.5)
    rates = [rate for _, _, rate in train(loop, spec, config).run.state.take_logged()]
    assert rates[0] == 0.5
    assert (rates[-1] < 0.5) == falls


def test_a_schedule_by_epoch_needs_to_know_what_an_epoch_is() -> None:
    spec = make_spec(train={"schedule_by": "epoch"})
    with pytest.raises(SpecError, match=r"schedule_by = .epoch. needs to know an epoch's length"):
        train(by_step, spec)
    assert train(over_loader, spec).outcome.ending == "complete"


@pytest.mark.parametrize("loader", [iter([1]), []])
def test_a_loader_without_a_length_is_refused(loader: Any) -> None:
    def loop(run: Run) -> None:
        list(run.steps(loader))

    with pytest.raises(SpecError, match=r"no length: say how many batches|without batches"):
        train(loop, SPEC)


class Stream(IterableDataset[Any]):
    """The points of the other loops, one by one, without a word on how many there are."""

    def __iter__(self) -> Iterator[Any]:
        inputs, targets = points()
        for row in torch.randperm(EXAMPLES):
            yield inputs[row], targets[row]


def over_stream(run: Run) -> None:
    over_loader(run, DataLoader(Stream(), batch_size=BATCH))


def test_a_stream_takes_its_length_from_the_study_file_and_goes_on_in_mid_epoch() -> None:
    spec = make_spec(budget={"epochs": 3, "epoch_steps": EPOCH, "evaluations": 4})
    straight = train(over_stream, spec)
    assert straight.run.total_steps == 3 * EPOCH
    at = EPOCH + 2
    _, went_on = stop_and_go(over_stream, at, spec)
    assert went_on.outcome.ending == "complete"
    assert torch.equal(parameters_of(straight.run), parameters_of(went_on.run))


def test_a_stream_takes_its_length_from_its_loop() -> None:
    def loop(run: Run) -> None:
        run.measure(EPOCH)
        over_stream(run)

    assert train(loop, make_spec(budget={"epochs": 2})).run.total_steps == 2 * EPOCH


def test_an_epoch_of_another_length_than_the_study_file_says_is_refused() -> None:
    spec = make_spec(budget={"epochs": 2, "epoch_steps": EPOCH + 1})
    with pytest.raises(SpecError, match=rf"epoch_steps = {EPOCH + 1}, but .* has {EPOCH} steps"):
        train(over_loader, spec)
    with pytest.raises(WorkloadError, match=rf"gave {EPOCH} batches in epoch 1"):
        train(over_stream, spec)


def test_a_loader_that_can_be_iterated_once_is_refused_where_a_second_epoch_begins() -> None:
    class Once:
        def __init__(self) -> None:
            self._batches = iter(range(8))

        def __len__(self) -> int:
            return 8

        def __iter__(self) -> Iterator[int]:
            return self._batches

    seen: list[int] = []

    def loop(run: Run) -> None:
        seen.extend(step for step, _ in run.steps(Once()))

    with pytest.raises(WorkloadError, match=r"Once of length 8, which gave 0 batches in epoch 2"):
        train(loop, SPEC)
    assert seen == list(range(8))


def test_a_frozen_group_needs_a_schedule() -> None:
    def unscheduled(run: Run) -> None:
        run.optimizer(Net())
        list(run.steps(batches_of()))

    config = make_config(groups=(GroupValues("body", "body.*", frozen_until=0.5),))
    with pytest.raises(SpecError, match=r"thawed by the schedule: call run\.schedule"):
        train(unscheduled, SPEC, config)


def of_two_models(run: Run) -> None:
    for name in ("body", "head"):
        run.optimizer(nn.ModuleDict({name: nn.Linear(1, 1)}))
    list(run.steps())


def of_a_count_of_its_own(run: Run) -> None:
    run.optimizer(Net())
    for step in range(20):
        run.report(step, val_loss=1.0)


@pytest.mark.parametrize("loop", [of_two_models, of_a_count_of_its_own])
def test_a_group_must_take_a_parameter_of_some_model(loop: Any) -> None:
    groups = [GroupValues(name, f"{name}.*", lr_multiplier=0.5) for name in ("body", "tail")]
    assert train(loop, SPEC, make_config(groups=tuple(groups[:1]))).outcome.ending == "complete"
    with pytest.raises(WorkloadError, match=r"'tail': match = 'tail\.\*' takes no .* head\.weight"):
        train(loop, SPEC, make_config(groups=tuple(groups)))


def test_a_rehearsal_is_cut_short() -> None:
    trial = train(by_step, SPEC, at_most=2)
    assert (trial.run.taken, trial.steps_evaluated) == (2, [1, 2])


def test_it_counts_the_parameters_it_trains() -> None:
    def loop(run: Run) -> None:
        model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
        model[0].bias.requires_grad_(False)
        run.optimizer(model)
        list(run.steps())

    trial = train(loop, SPEC)
    assert trial.run.state.parameters == 12 + 4 + 1


@pytest.mark.parametrize("value", ["3", None, [1.0], torch.tensor(1j), torch.randn(20)])
def test_only_single_numbers_are_logged(value: Any) -> None:
    with pytest.raises(WorkloadError, match=r"grad is of (type|shape) .* a single number"):
        train(lambda run: run.log(grad=value), SPEC)


BAD_NAMES = pytest.mark.parametrize(
    "name", ["", "x" * 256, "a\0b", "\ud800"], ids=["empty", "long", "nul", "surrogate"]
)


@BAD_NAMES
def test_a_name_that_no_database_keeps_fails_where_it_is_given(name: str) -> None:
    def log(run: Run) -> None:
        run.log(**{name: 1.0})

    metrics: dict[str, Any] = {name: 1.0}

    def report(run: Run) -> None:
        list(run.steps())
        run.report(val_loss=1.0, **metrics)

    def suggest(run: Run) -> None:
        run.suggest_float(name, 0.0, 1.0)

    for loop in (log, report, suggest):
        with pytest.raises(WorkloadError, match=r"as a name|the name") as raised:
            train(loop, SPEC)
        lines = [(frame.name, str(frame.path)) for frame in raised.traceback]
        assert (loop.__name__, __file__) in lines


def test_the_longest_name_is_kept() -> None:
    kept: list[list[tuple[int, str, float]]] = []

    def loop(run: Run) -> float:
        run.log(**{"ä" * 255: 1.0})
        kept.append(run.state.take_logged())
        return 0.0

    train(loop, SPEC)
    assert kept == [[(0, "ä" * 255, 1.0)]]


def test_nothing_is_saved_after_the_last_step() -> None:
    class Keen(Recorder):
        def advance(self, step: int) -> bool:
            kept.append(step)
            return super().advance(step)

    def loop(run: Run) -> float:
        optimizer = run.optimizer(nn.Linear(1, 1))
        for _ in run.steps():
            optimizer.step()
            run.checkpoint()
        resumable.append(run.state.resumable)
        return 0.0

    kept: list[int] = []
    resumable: list[bool] = []
    train(loop, SPEC, recorder=Keen())
    assert kept == list(range(1, 20))
    assert resumable == [False]


def test_a_loop_that_takes_its_own_steps_has_its_time_counted() -> None:
    def train(run: Run) -> None:
        model = nn.Linear(2, 1)
        optimizer = run.optimizer(model)
        for _ in range(40):
            optimizer.zero_grad()
            model(torch.ones(4, 2)).square().mean().backward()
            optimizer.step()
            run.report(val_loss=1.0)

    reporter = Recorder()
    run = reporter.run = Run(make_spec(), make_config(), device=CPU, reporter=reporter)
    run_trial(train, run)
    assert run.timing.train_s > 0
