from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.parabola import Parabola
from tests.training.trials import Recorder, make_spec, make_trainer, parameters_of, run
from tuner.domain.spec import StudySpec
from tuner.training.loop import Ending, Timing, run_trial
from tuner.training.seeds import BatchOrder
from tuner.training.trainer import Bench, Trainer
from tuner.training.workload import Batch


def first_bad_step(bench: Bench, lr: float, steps: int) -> int:
    """Returns where plain gradient descent diverges, by a loop of its own."""
    model = bench.build_model(0)
    order = BatchOrder(bench.train_examples, 32, 0, bench.device)
    for step in range(steps):
        batch = tuple(t[order(step)] for t in bench.data.train)
        loss = bench.workload.loss(model, batch)
        if not math.isfinite(loss.item()):
            return step + 1
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.sub_(gradient, alpha=lr)
    pytest.fail("the loop did not diverge")


def exploding(bench: Bench, spec: StudySpec) -> Trainer:
    return make_trainer(bench, "sgd", spec, schedule="constant", warmup=0.0, lr=1e4)


class Unranked(Parabola):
    """A parabola whose metric stops being a number while its loss stays one."""

    def __init__(self, value: float) -> None:
        self.value = value
        self.evaluations = 0

    def metrics(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        self.evaluations += 1
        value = torch.tensor(1.0 if self.evaluations < 3 else self.value)
        return {"val_loss": value, "other": torch.tensor(math.nan)}


def test_a_trial_is_evaluated_where_the_budget_says(parabola: Bench):
    outcome, recorder = run(make_trainer(parabola, spec=make_spec(10, 4)))
    assert outcome.ending is Ending.COMPLETE
    assert [(e.index, e.step) for e in recorder.evaluations] == [(1, 3), (2, 5), (3, 8), (4, 10)]
    assert outcome.metrics == recorder.evaluations[-1].metrics


def test_the_training_loss_is_the_mean_since_the_last_evaluation(parabola: Bench):
    spec = make_spec(10, 2)
    _, recorder = run(make_trainer(parabola, spec=spec))
    trainer = make_trainer(parabola, spec=spec)
    for evaluation in recorder.evaluations:
        for _ in range(5):
            trainer.step()
        losses = trainer.collect_losses()
        trainer.forget_losses()
        assert evaluation.train_loss == pytest.approx(sum(losses) / 5, rel=1e-12)


def test_training_improves_the_metric(parabola: Bench):
    _, recorder = run(make_trainer(parabola, spec=make_spec(200, 4), lr=0.01))
    values = [e.metrics["val_loss"] for e in recorder.evaluations]
    assert values[-1] < 0.5 * values[0]


def test_a_rate_far_too_high_diverges_at_the_first_bad_step(parabola: Bench):
    expected = first_bad_step(parabola, 1e4, 40)
    outcome, recorder = run(exploding(parabola, make_spec(40, 2)))
    assert outcome.ending is Ending.DIVERGED
    assert outcome.diverged_step == expected
    assert recorder.evaluations == []


def test_a_trial_that_diverges_stops_at_the_next_evaluation(parabola: Bench):
    _, recorder = run(exploding(parabola, make_spec(40, 8)))
    assert recorder.steps[-1] < 40
    assert recorder.steps[-1] % 5 == 0


def test_a_trial_resumed_after_the_bad_step_still_names_it(parabola: Bench):
    spec = make_spec(60, 2)
    bad = first_bad_step(parabola, 1e4, 60)
    trainer = exploding(parabola, spec)
    states: dict[int, Any] = {}

    def keep(step: int) -> None:
        states[step] = copy.deepcopy(trainer.state_dict())

    run(trainer, Recorder(on_step=keep))
    for step in (bad + 1, bad + 2):
        resumed = exploding(parabola, spec)
        resumed.load_state_dict(states[step])
        outcome, _ = run(resumed)
        assert (outcome.ending, outcome.diverged_step) == (Ending.DIVERGED, bad)


def test_a_late_divergence_keeps_the_metrics_of_the_last_evaluation(parabola: Bench):
    spec = make_spec(40, 4)
    trainer = make_trainer(parabola, "sgd", spec, schedule="constant", lr=0.01)

    def poison(step: int) -> None:
        if step == 25:
            with torch.no_grad():
                next(trainer.model.parameters()).fill_(math.inf)

    outcome, recorder = run(trainer, Recorder(on_step=poison))
    assert (outcome.ending, outcome.diverged_step) == (Ending.DIVERGED, 26)
    assert [e.step for e in recorder.evaluations] == [10, 20]
    assert outcome.metrics == recorder.evaluations[-1].metrics


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_no_number_is_a_divergence(value: float):
    bench = Bench.prepare(Unranked(value), torch.device("cpu"), "float32")
    outcome, recorder = run(make_trainer(bench, spec=make_spec(40, 4)))
    assert (outcome.ending, outcome.diverged_step) == (Ending.DIVERGED, 30)
    assert [e.step for e in recorder.evaluations] == [10, 20]


def test_another_metric_may_be_no_number():
    bench = Bench.prepare(Unranked(1.0), torch.device("cpu"), "float32")
    outcome, _ = run(make_trainer(bench))
    assert outcome.ending is Ending.COMPLETE


@pytest.mark.parametrize("step", [10, 20, 30])
def test_a_pruned_trial_stops_at_that_evaluation(parabola: Bench, step: int):
    trainer = make_trainer(parabola)
    outcome, recorder = run(trainer, Recorder(prune_at=step))
    assert outcome.ending is Ending.PRUNED
    assert trainer.step_number == recorder.steps[-1] == recorder.evaluations[-1].step == step
    assert outcome.metrics == recorder.evaluations[-1].metrics


def continue_from(state: Any, bench: Bench, spec: StudySpec) -> tuple[Trainer, Recorder]:
    trainer = make_trainer(bench, spec=spec)
    trainer.load_state_dict(state)
    outcome, recorder = run(trainer)
    assert outcome.ending is Ending.COMPLETE
    return trainer, recorder


@pytest.mark.parametrize("step", [1, 9, 10, 11, 25, 39])
def test_an_interrupted_trial_continues_as_if_nothing_had_been(parabola: Bench, step: int):
    spec = make_spec()
    whole = make_trainer(parabola, spec=spec)
    _, expected = run(whole)
    first = make_trainer(parabola, spec=spec)
    outcome, before = run(first, Recorder(interrupt_at=step))
    assert outcome.ending is Ending.INTERRUPTED
    assert first.step_number == step
    second, after = continue_from(copy.deepcopy(first.state_dict()), parabola, spec)
    assert torch.equal(parameters_of(second), parameters_of(whole))
    assert before.metrics + after.metrics == expected.metrics


def test_an_interruption_between_evaluations_does_not_change_the_training_loss(parabola: Bench):
    spec = make_spec()
    _, expected = run(make_trainer(parabola, spec=spec))
    first = make_trainer(parabola, spec=spec)
    _, before = run(first, Recorder(interrupt_at=15))
    _, after = continue_from(copy.deepcopy(first.state_dict()), parabola, spec)
    continued = [e.train_loss for e in before.evaluations + after.evaluations]
    assert continued == pytest.approx([e.train_loss for e in expected.evaluations], rel=1e-12)


@pytest.mark.parametrize("step", [5, 10, 35, 40])
@pytest.mark.parametrize("call", [0, -1], ids=["after the step", "within the evaluation"])
def test_a_trial_killed_after_a_checkpoint_is_evaluated_from_there_on(
    parabola: Bench, step: int, call: int
):
    # A worker saves whenever it hears that the trial goes on.
    spec = make_spec()
    trainer = make_trainer(parabola, spec=spec)
    states: list[Any] = []

    def keep(at: int) -> None:
        if at == step:
            states.append(copy.deepcopy(trainer.state_dict()))

    _, whole = run(trainer, Recorder(on_step=keep))
    _, after = continue_from(states[call], parabola, spec)
    assert after.evaluations == [told for told in whole.evaluations if told.step >= step]


def test_the_reporter_hears_of_every_step(parabola: Bench):
    _, recorder = run(make_trainer(parabola))
    assert sorted(set(recorder.steps)) == list(range(1, 41))
    assert recorder.steps == sorted(recorder.steps)


@pytest.mark.parametrize("step", [10, 20])
def test_an_evaluation_is_not_stopped_halfway(parabola: Bench, step: int):
    recorder = Recorder(interrupt_at=step)
    outcome, _ = run(make_trainer(parabola), recorder)
    assert outcome.ending is Ending.INTERRUPTED
    assert recorder.evaluations[-1].step == step


def test_an_interruption_at_the_last_step_completes_the_trial(parabola: Bench):
    outcome, recorder = run(make_trainer(parabola), Recorder(interrupt_at=40))
    assert outcome.ending is Ending.COMPLETE
    assert recorder.evaluations[-1].step == 40


def test_an_interruption_at_an_evaluation_still_reports_it(parabola: Bench):
    outcome, recorder = run(make_trainer(parabola), Recorder(interrupt_at=20))
    assert outcome.ending is Ending.INTERRUPTED
    assert [e.step for e in recorder.evaluations] == [10, 20]


def test_a_trial_with_one_evaluation_runs_through(parabola: Bench):
    outcome, recorder = run(make_trainer(parabola, "sgd", make_spec(2500, 1)))
    assert outcome.ending is Ending.COMPLETE
    assert [e.step for e in recorder.evaluations] == [2500]


def test_the_time_of_earlier_attempts_is_added_to(parabola: Bench):
    timing = Timing(train_s=100.0, eval_s=10.0)
    outcome = run_trial(make_trainer(parabola), "val_loss", Recorder(), timing)
    assert outcome.timing is timing
    assert 100 < timing.train_s < 160
    assert 10 < timing.eval_s < 70
