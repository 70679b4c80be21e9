"""The loop over a workload class, and how any loop ends."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from models.digits import Digits
from models.parabola import Parabola
from tests.training.trials import (
    CPU,
    Droopy,
    Line,
    Recorder,
    check_continued,
    make_config,
    make_spec,
    parameters_of,
    prepare_workload,
    stop_and_go,
    train,
)
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.errors import SpecError, WorkloadError
from tuner.training.loop import Ending, Losses
from tuner.training.prepared_workload import PreparedWorkload
from tuner.training.reporting import StaleCheckpointError
from tuner.training.run import Run
from tuner.training.seeds import BatchOrder
from tuner.training.workload import Batch

EXPLODING = make_config("sgd", schedule="constant", warmup=0.0, lr=1e4)


def first_bad_step(prepared: PreparedWorkload, lr: float, steps: int) -> int:
    """Returns where plain gradient descent diverges, by a loop of its own."""
    model = prepared.build_model(0)
    order = BatchOrder(prepared.train_examples, 32, 0, prepared.device)
    for step in range(steps):
        batch = tuple(t[order(step)] for t in prepared.data.train)
        loss = prepared.workload.loss(model, batch)
        if not math.isfinite(loss.item()):
            return step + 1
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.sub_(gradient, alpha=lr)
    pytest.fail("the loop did not diverge")


class Unranked(Parabola):
    """A parabola whose metric stops being a number while its loss stays one."""

    def __init__(self, value: float) -> None:
        self.value = value
        self.evaluations = 0

    def metrics(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        self.evaluations += 1
        value = torch.tensor(1.0 if self.evaluations < 3 else self.value)
        return {"val_loss": value, "other": torch.tensor(math.nan)}


class Watching(Digits):
    """Digits that remember the parameters they began with and the types they were computed in."""

    def __init__(self) -> None:
        self.start: Tensor | None = None
        self.seen: set[torch.dtype] = set()

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        if self.start is None:
            self.start = nn.utils.parameters_to_vector(model.parameters()).detach()
        logits = model(batch[0])
        self.seen.add(logits.dtype)
        return cross_entropy(logits, batch[1])


# Where it reports.


def test_a_trial_is_evaluated_where_the_budget_says(parabola: PreparedWorkload) -> None:
    trial = train(parabola, make_spec(10, 4))
    assert trial.outcome.ending is Ending.COMPLETE
    assert [(e.index, e.step) for e in trial.evaluations] == [(1, 3), (2, 5), (3, 8), (4, 10)]


@pytest.mark.parametrize(("length", "steps"), [({"epochs": 0.5}, 3), ({"examples": 200}, 6)])
def test_a_budget_of_epochs_or_examples_is_counted_in_batches(length: Any, steps: int) -> None:
    trial = train(prepare_workload(Line()), make_spec(budget=length | {"evaluations": 1}))
    assert trial.run.taken == trial.run.total_steps == trial.steps_evaluated[-1] == steps


def test_the_training_loss_is_the_mean_since_the_last_evaluation(
    parabola: PreparedWorkload,
) -> None:
    means = train(parabola, make_spec(10, 2)).run.state.take_logged()
    every = train(parabola, make_spec(10, 10)).run.state.take_logged()
    assert [(step, name) for step, name, _ in means] == [(5, "train_loss"), (10, "train_loss")]
    losses = [value for _, _, value in every]
    expected = [sum(losses[:5]) / 5, sum(losses[5:]) / 5]
    assert [value for _, _, value in means] == pytest.approx(expected, rel=1e-12)


def test_training_improves_the_metric(parabola: PreparedWorkload) -> None:
    values = train(parabola, make_spec(200, 4), make_config(lr=0.01)).values
    assert values[-1] < 0.5 * values[0]


def test_a_trial_with_one_evaluation_runs_through(parabola: PreparedWorkload) -> None:
    trial = train(parabola, make_spec(2500, 1), make_config("sgd"))
    assert trial.outcome.ending is Ending.COMPLETE
    assert trial.steps_evaluated == [2500]


def test_the_reporter_hears_of_every_step(parabola: PreparedWorkload) -> None:
    heard = train(parabola).recorder.steps
    assert sorted(set(heard)) == list(range(1, 41))
    assert heard == sorted(heard)


# What makes a trial the same trial.


def test_another_seed_gives_another_trial(digits: PreparedWorkload) -> None:
    first, second = (train(digits, make_spec(search={"seed": seed})) for seed in (0, 1))
    assert not torch.equal(first.parameters, second.parameters)


def test_a_trial_does_not_depend_on_what_ran_before_it() -> None:
    prepared = prepare_workload(Droopy())
    first = train(prepared)
    torch.rand(17)
    assert torch.equal(first.parameters, train(prepared).parameters)


def test_every_optimizer_starts_from_the_same_parameters() -> None:
    starts = []
    for name in (n for n, row in OPTIMIZERS.items() if row.takes != "sparse"):
        workload = Watching()
        train(prepare_workload(workload), make_spec(1, 1), make_config(name))
        assert workload.start is not None
        starts.append(workload.start)
    assert all(torch.equal(start, starts[0]) for start in starts)


def test_dropout_does_not_depend_on_what_the_initialisation_drew() -> None:
    class DrawsMore(Droopy):
        def model(self) -> nn.Module:
            model = super().model()
            torch.rand(17)
            return model

    plain, drawing = train(prepare_workload(Droopy())), train(prepare_workload(DrawsMore()))
    assert torch.equal(plain.parameters, drawing.parameters)


def test_an_evaluation_does_not_change_the_training_that_follows() -> None:
    prepared = prepare_workload(Droopy())
    rarely, often = (train(prepared, make_spec(40, evaluations)) for evaluations in (1, 40))
    assert torch.equal(rarely.parameters, often.parameters)


# How it trains.


@pytest.mark.parametrize("clip", [0.01, 0.5])
def test_clipping_bounds_the_update(parabola: PreparedWorkload, clip: float) -> None:
    seen: list[Tensor] = []
    train(
        parabola,
        make_spec(5, 1, train={"grad_clip": clip}),
        make_config("sgd", schedule="constant", warmup=0.0, lr=1.0),
        Recorder(on_step=lambda run, step: seen.append(parameters_of(run))),
    )
    moved = [(after - before).norm() for before, after in itertools.pairwise(seen)]
    assert len(moved) >= 4
    assert max(moved) <= clip * (1 + 1e-5)


def test_without_clipping_the_same_update_is_larger(parabola: PreparedWorkload) -> None:
    config = make_config("sgd", schedule="constant", warmup=0.0, lr=1.0)
    free, clipped = (
        train(parabola, make_spec(1, 1, train=table), config).parameters
        for table in ({}, {"grad_clip": 0.01})
    )
    start = nn.utils.parameters_to_vector(parabola.build_model(0).parameters())
    assert (free - start).norm() > 1.1 * (clipped - start).norm()


def test_gradients_below_the_bound_are_left_alone(parabola: PreparedWorkload) -> None:
    config = make_config("sgd")
    free = train(parabola, make_spec(5, 1), config)
    clipped = train(parabola, make_spec(5, 1, train={"grad_clip": 1e6}), config)
    torch.testing.assert_close(free.parameters, clipped.parameters, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("precision", "kept", "computed"),
    [
        ("float32", torch.float32, torch.float32),
        ("bfloat16", torch.float32, torch.bfloat16),
        ("float64", torch.float64, torch.float64),
    ],
)
def test_a_precision_decides_the_types_of_parameters_and_products(
    precision: str, kept: torch.dtype, computed: torch.dtype
) -> None:
    workload = Watching()
    prepared = prepare_workload(workload, precision)
    trial = train(prepared, make_spec(train={"precision": precision}), make_config(lr=0.01))
    assert trial.parameters.dtype == kept
    assert workload.seen == {computed}
    assert prepared.data.train[0].dtype == kept
    assert prepared.data.train[1].dtype == torch.int64
    assert trial.values[-1] < 0.7 * trial.values[0]


def test_the_schedule_drives_the_learning_rate(parabola: PreparedWorkload) -> None:
    rates: dict[int, float] = {}

    def keep(run: Run, step: int) -> None:
        rates[step] = run.state.state_dict()["optimizers"][0]["param_groups"][0]["lr"]

    train(parabola, make_spec(20), make_config("sgd", lr=1.0), Recorder(on_step=keep))
    course = [rates[step] for step in range(1, 20)]
    assert course[:2] == pytest.approx([1.0, 1.0])
    assert course[1:] == sorted(course[1:], reverse=True)
    assert 0 < course[-1] < 0.02


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(
        SpecError, match=r"train\.batch_size = 201: the workload has only 200 training examples"
    ):
        train(prepare_workload(Line()), config=make_config(batch_size=201))


def test_muon_on_a_model_without_matrices_is_a_fault_of_the_workload() -> None:
    workload = type("Own", (Line,), {"model": lambda self: nn.LayerNorm(2)})()
    with pytest.raises(WorkloadError, match="leave muon out"):
        train(prepare_workload(workload), config=make_config("muon"))


# What L-BFGS costs.


class Counting(Parabola):
    """A parabola that counts how often its loss is differentiated."""

    calls = 0

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        self.calls += torch.is_grad_enabled()
        return super().loss(model, batch)


@pytest.mark.parametrize("steps", [1, 15, 33])
@pytest.mark.parametrize("max_iter", [4, 20])
def test_an_optimizer_with_closures_pays_a_step_a_gradient(steps: int, max_iter: int) -> None:
    workload = Counting()
    values: dict[str, Any] = {"lr": 0.1, "max_iter": max_iter, "line_search_fn": "none"}
    config = make_config("lbfgs", schedule="constant", warmup=0.0, **values)
    trial = train(prepare_workload(workload), make_spec(steps, 1), config)
    assert trial.run.taken == workload.calls == steps
    assert trial.run.turns == math.ceil(steps / max_iter)
    assert trial.steps_evaluated == [steps]


def test_a_search_along_a_line_pays_for_its_gradients_and_is_not_cut_off() -> None:
    workload = Counting()
    config = make_config("lbfgs", schedule="constant", warmup=0.0, max_iter=4)
    trial = train(prepare_workload(workload), make_spec(33, 1), config)
    # torch's search looks at no more than 25 points.
    assert 33 <= trial.run.taken == workload.calls < 33 + 26
    assert len(trial.evaluations) == 1


# How it ends.


def test_a_rate_far_too_high_diverges_at_the_first_bad_step(parabola: PreparedWorkload) -> None:
    trial = train(parabola, make_spec(40, 2), EXPLODING)
    assert trial.outcome.ending is Ending.DIVERGED
    assert trial.outcome.diverged_step == first_bad_step(parabola, 1e4, 40)
    assert trial.evaluations == []


def test_a_trial_that_diverges_stops_at_the_next_evaluation(parabola: PreparedWorkload) -> None:
    trial = train(parabola, make_spec(40, 8), EXPLODING)
    bad = first_bad_step(parabola, 1e4, 40)
    assert trial.run.taken == math.ceil(bad / 5) * 5 < 40


def test_a_trial_resumed_after_the_bad_step_still_names_it(parabola: PreparedWorkload) -> None:
    spec = make_spec(60, 2)
    bad = first_bad_step(parabola, 1e4, 60)
    for step in (bad + 1, bad + 2):
        _, continued = stop_and_go(parabola, step, spec, EXPLODING)
        assert continued.outcome.diverged_step == bad


def test_a_late_divergence_keeps_the_evaluations_before_it(parabola: PreparedWorkload) -> None:
    def poison(run: Run, step: int) -> None:
        if step == 25:
            next(iter(run.state.state_dict()["models"][0].values())).fill_(math.inf)

    trial = train(parabola, recorder=Recorder(on_step=poison))
    assert (trial.outcome.ending, trial.outcome.diverged_step) == (Ending.DIVERGED, 26)
    assert trial.steps_evaluated == [10, 20]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_no_number_is_a_divergence(value: float) -> None:
    trial = train(prepare_workload(Unranked(value)))
    assert (trial.outcome.ending, trial.outcome.diverged_step) == (Ending.DIVERGED, 30)
    assert trial.steps_evaluated == [10, 20]


def test_another_metric_may_be_no_number() -> None:
    assert train(prepare_workload(Unranked(1.0))).outcome.ending is Ending.COMPLETE


@pytest.mark.parametrize("step", [10, 20, 30])
def test_a_pruned_trial_stops_at_that_evaluation(parabola: PreparedWorkload, step: int) -> None:
    trial = train(parabola, recorder=Recorder(prune_at=step))
    assert trial.outcome.ending is Ending.PRUNED
    assert trial.run.taken == trial.recorder.steps[-1] == trial.steps_evaluated[-1] == step


def test_an_interruption_at_the_last_step_completes_the_trial(parabola: PreparedWorkload) -> None:
    trial = train(parabola, recorder=Recorder(interrupt_at=40))
    assert trial.outcome.ending is Ending.COMPLETE
    assert trial.steps_evaluated[-1] == 40


def test_an_interruption_at_an_evaluation_still_reports_it(parabola: PreparedWorkload) -> None:
    trial = train(parabola, recorder=Recorder(interrupt_at=20))
    assert trial.outcome.ending is Ending.INTERRUPTED
    assert trial.steps_evaluated == [10, 20]


# How it goes on.


@pytest.mark.parametrize("step", [1, 9, 10, 11, 25, 39])
def test_an_interrupted_trial_continues_as_if_nothing_had_been(step: int) -> None:
    prepared = prepare_workload(Droopy())
    check_continued(train(prepared), *stop_and_go(prepared, step))


def test_an_interruption_between_evaluations_does_not_change_the_training_loss(
    parabola: PreparedWorkload,
) -> None:
    whole, (stopped, continued) = train(parabola), stop_and_go(parabola, 15)
    logged = stopped.run.state.take_logged() + continued.run.state.take_logged()
    assert logged == whole.run.state.take_logged()


@pytest.mark.parametrize("step", [5, 10, 35, 39])
def test_a_trial_killed_after_a_checkpoint_is_evaluated_from_there_on(
    parabola: PreparedWorkload, step: int
) -> None:
    # A worker saves when it hears that the trial goes on, if that is of any use.
    states: dict[int, Any] = {}

    def keep(run: Run, at: int) -> None:
        if run.state.resumable:
            assert at not in states
            states[at] = copy.deepcopy(run.state.state_dict())

    whole = train(parabola, recorder=Recorder(on_step=keep))
    continued = train(parabola, state=states[step])
    assert continued.evaluations == [told for told in whole.evaluations if told.step > step]
    assert torch.equal(continued.parameters, whole.parameters)


def test_within_an_evaluation_nothing_is_saved(parabola: PreparedWorkload) -> None:
    heard: list[tuple[int, bool]] = []
    recorder = Recorder(on_step=lambda run, at: heard.append((at, run.state.resumable)))
    train(parabola, recorder=recorder)
    *within, after = (saved for at, saved in heard if at == 10)
    assert within
    assert not any(within)
    assert after
    assert [saved for at, saved in heard if at == 11] == [True]


def test_the_time_of_earlier_attempts_is_added_to(parabola: PreparedWorkload) -> None:
    stopped = train(parabola, recorder=Recorder(interrupt_at=20))
    state = stopped.run.state.state_dict() | {"timing": {"train_s": 100.0, "eval_s": 10.0}}
    timing = train(parabola, state=state).run.timing
    assert 100 < timing.train_s < 160
    assert 10 < timing.eval_s < 70


@pytest.mark.parametrize(
    ("prepared", "spec", "config"),
    [
        (Digits(), make_spec(search={"seed": 1}), make_config()),
        (Digits(), make_spec(41), make_config()),
        (Digits(), make_spec(budget={"epochs": 3}), make_config()),
        (Line(), make_spec(), make_config()),
        (Digits(), make_spec(), make_config("muon")),
        (Digits(), make_spec(), make_config(schedule="plateau")),
    ],
    ids=["seed", "length", "epochs", "model", "optimizer", "schedule"],
)
def test_the_checkpoint_of_another_trial_is_stale(
    digits: PreparedWorkload, prepared: Any, spec: Any, config: Any
) -> None:
    state = train(digits, recorder=Recorder(interrupt_at=20)).run.state.state_dict()
    with pytest.raises(StaleCheckpointError):
        train(prepare_workload(prepared), spec, config, state=state)


# Losses between evaluations.


def test_losses_are_kept_in_the_order_of_their_steps_until_forgotten() -> None:
    losses = Losses(CPU)
    for value in (1.0, 2.0, 3.0):
        losses.add(torch.tensor(value))
    assert losses.read() == losses.read() == [1.0, 2.0, 3.0]
    losses.forget()
    assert losses.read() == []


def test_thousands_of_losses_are_kept_also_over_a_checkpoint() -> None:
    losses, continued = Losses(CPU), Losses(CPU)
    for value in range(2500):
        losses.add(torch.tensor(float(value)))
    continued.load_state_dict(losses.state_dict())
    for value in range(2500, 4000):
        continued.add(torch.tensor(float(value)))
    assert continued.read() == [float(value) for value in range(4000)]
