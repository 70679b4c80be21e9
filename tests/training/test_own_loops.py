"""What holds for every training loop, whatever it does between two steps."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from tests.training.loops import (
    EPOCH,
    LOOPS,
    STEPS,
    Net,
    batches_of,
    by_step,
    differentiate,
    evaluate,
    over_loader,
    points,
    with_closure,
)
from tests.training.trials import (
    CPU,
    Recorder,
    Trial,
    check_continued,
    is_same,
    make_config,
    make_spec,
    stop_and_go,
    train,
)
from tuner.domain.groups import GroupValues
from tuner.domain.spec import StudySpec
from tuner.errors import SpecError
from tuner.training.prepared_workload import PreparedWorkload
from tuner.training.reporting import StaleCheckpointError
from tuner.training.run import Run
from tuner.training.seeds import BatchOrder

SPEC = make_spec(STEPS, 4)
OWN: dict[str, Any] = {"dropout": 0.1}


def train_own(loop: Any, spec: Any = SPEC, config: Any = None) -> Trial:
    return train(loop, spec, config, Recorder(values=dict(OWN)))


@pytest.mark.parametrize("name", list(LOOPS))
class TestEveryLoop:
    def test_it_is_evaluated_where_the_budget_says(self, name: str) -> None:
        trial = train_own(LOOPS[name])
        assert trial.outcome.ending == "complete"
        assert trial.steps_evaluated == [7, 14, 21, 28]
        assert trial.run.taken == trial.run.turns == STEPS

    def test_it_repeats_exactly(self, name: str) -> None:
        first = train_own(LOOPS[name]).state
        torch.rand(17)
        assert is_same(first, train_own(LOOPS[name]).state)

    # In mid-epoch, just before and after its end, and at a step that reports.
    @pytest.mark.parametrize("step", [1, 6, 7, 8, 14, 24])
    def test_it_continues_as_if_never_stopped(self, name: str, step: int) -> None:
        loop = LOOPS[name]
        check_continued(train_own(loop), *stop_and_go(loop, step, SPEC, **OWN))

    def test_it_stops_where_it_is_pruned(self, name: str) -> None:
        trial = train(LOOPS[name], SPEC, recorder=Recorder(prune_at=14, values=dict(OWN)))
        assert trial.outcome.ending == "pruned"
        assert trial.run.taken == trial.steps_evaluated[-1] == 14


BUDGETS = {"steps": STEPS, "epochs": STEPS // EPOCH, "examples": STEPS * 32}
"""The same length in every unit; a step takes 32 examples, whatever the loader says."""


@pytest.mark.parametrize("unit", list(BUDGETS))
@pytest.mark.parametrize("loop", ["over_loader", "unscheduled", "adversarial"])
class TestEveryBudget:
    @pytest.fixture
    def spec(self, unit: str) -> StudySpec:
        return make_spec(budget={unit: BUDGETS[unit], "evaluations": 4})

    def test_it_continues_as_if_never_stopped(self, spec: StudySpec, loop: str) -> None:
        whole = train_own(LOOPS[loop], spec)
        assert whole.run.taken == STEPS
        check_continued(whole, *stop_and_go(LOOPS[loop], 9, spec))

    def test_its_length_is_known_before_the_loop_measures_it_again(
        self, spec: StudySpec, loop: str
    ) -> None:
        state = train(LOOPS[loop], spec, recorder=Recorder(interrupt_at=9)).run.state.state_dict()
        run = Run(spec, make_config(), device=CPU, reporter=Recorder(), state=state)
        assert (run.total_steps, run.taken, run.state.evaluated) == (STEPS, 9, 1)

    def test_more_evaluations_than_were_due_are_refused_at_once(
        self, spec: StudySpec, loop: str
    ) -> None:
        state = train(LOOPS[loop], spec, recorder=Recorder(interrupt_at=9)).run.state.state_dict()
        with pytest.raises(StaleCheckpointError, match="more evaluations than were due"):
            Run(
                spec,
                make_config(),
                device=CPU,
                reporter=Recorder(),
                state=state | {"evaluated": 2},
            )


def test_a_loop_that_measures_another_length_does_not_go_on() -> None:
    spec = make_spec(budget={"epochs": STEPS // EPOCH, "evaluations": 4})
    state = train(over_loader, spec, recorder=Recorder(interrupt_at=9)).run.state.state_dict()

    def over_fewer(run: Run) -> None:
        run.measure(EPOCH - 2)
        over_loader(run)

    with pytest.raises(StaleCheckpointError, match="another seed or length"):
        train(over_fewer, spec, state=state)


@pytest.mark.parametrize("optimizer", ["momentum", "muon", "lbfgs"])
@pytest.mark.parametrize("schedule", ["one_cycle", "plateau"])
@pytest.mark.parametrize("step", [9, 21])
def test_other_optimizers_and_schedules_continue_as_well(
    optimizer: str, schedule: str, step: int
) -> None:
    few: dict[str, Any] = {"max_iter": 4} if optimizer == "lbfgs" else {}
    config = make_config(optimizer, schedule=schedule, lr=0.1, **few)
    whole = train(with_closure, SPEC, config)
    check_continued(whole, *stop_and_go(with_closure, step, SPEC, config))


@pytest.mark.parametrize(
    "loop", ["over_loader", "scheduled_by_epoch", "adversarial", "with_scaler"]
)
@pytest.mark.parametrize("step", [3, 10, 13, 14, 17])
def test_a_frozen_group_thaws_on_time_after_any_interruption(loop: str, step: int) -> None:
    # With 28 steps it thaws at step 14, or at the end of the epoch that ends there.
    groups = (GroupValues("body", "*ight", lr_multiplier=0.5, frozen_until=0.45),)
    config = make_config("adam", groups=groups)
    whole = train(LOOPS[loop], SPEC, config)
    assert [group["frozen_until"] for group in whole.run.state.describe_groups()][1] == 0.45
    check_continued(whole, *stop_and_go(LOOPS[loop], step, SPEC, config))


def test_a_workload_class_is_a_loop_that_anyone_could_have_written(
    parabola: PreparedWorkload,
) -> None:
    def own(run: Run) -> None:
        model = parabola.workload.model()
        optimizer = run.optimizer(model)
        schedule = run.schedule(optimizer)
        order = BatchOrder(parabola.train_examples, run.batch_size, run.seed, run.device)
        for step in run.steps():
            loss = parabola.workload.loss(model, parabola.batch(order(step)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if run.due(step):
                run.report(step, **parabola.evaluate(model))

    theirs, ours = train(own), train(parabola)
    assert theirs.evaluations == ours.evaluations
    assert torch.equal(theirs.parameters, ours.parameters)


def test_gradients_accumulated_over_parts_are_those_of_the_whole_batch() -> None:
    def loop_over(parts: int) -> Trial:
        def loop(run: Run) -> None:
            model = torch.nn.Linear(4, 1).double()
            optimizer = run.optimizer(model)
            for step in run.steps():
                optimizer.zero_grad()
                for x, y in zip(*(t.double().split(64 // parts) for t in points()), strict=True):
                    ((model(x) - y).square().mean() / parts).backward()
                optimizer.step()
                run.report(step, val_loss=0.0)

        return train(loop, make_spec(5, 1), make_config("sgd", lr=0.01))

    whole, accumulated = loop_over(1), loop_over(4)
    torch.testing.assert_close(whole.parameters, accumulated.parameters, rtol=1e-12, atol=1e-12)
    assert whole.run.taken == accumulated.run.taken == 5


@pytest.mark.parametrize("schedule_by", ["step", "epoch"])
def test_a_schedule_changes_as_often_as_the_study_says(schedule_by: str) -> None:
    rates: list[float] = []

    def keep(run: Run, step: int) -> None:
        rates.append(run.state.state_dict()["optimizers"][0]["param_groups"][0]["lr"])

    spec = make_spec(STEPS, 4, train={"schedule_by": schedule_by})
    train(over_loader, spec, make_config(schedule="linear"), Recorder(on_step=keep))
    changes = [a != b for a, b in itertools.pairwise(rates)]
    # After the last step the run hears nothing any more.
    expected = [schedule_by == "step" or (step + 1) % EPOCH == 0 for step in range(1, STEPS - 1)]
    assert changes[3:] == expected[3:]


@pytest.mark.parametrize(
    ("length", "steps"),
    [({"epochs": 3}, 21), ({"epochs": 0.5}, 4), ({"examples": 130}, 13), ({"steps": 9}, 9)],
)
def test_a_loader_tells_how_long_a_budget_is(length: dict[str, float], steps: int) -> None:
    spec = make_spec(budget=length | {"evaluations": 2})
    trial = train(over_loader, spec, make_config(batch_size=10))
    assert (trial.run.taken, trial.run.epoch_steps) == (steps, EPOCH)
    assert trial.steps_evaluated == [(steps + 1) // 2, steps]


def test_what_a_closure_costs_is_counted_and_capped() -> None:
    calls = []

    def loop(run: Run) -> float:
        model = torch.nn.Linear(1, 1)
        optimizer = run.optimizer(model)
        schedule = run.schedule(optimizer)

        def closure() -> Any:
            calls.append(run.taken)
            optimizer.zero_grad()
            loss = (model(torch.ones(4, 1)) - 3.0).abs().square().sum()
            loss.backward()
            return loss

        for _ in run.steps():
            optimizer.step(closure)
            schedule.step()
        return 1.0

    values: dict[str, Any] = {"lr": 0.01, "max_iter": 8, "line_search_fn": "none"}
    config = make_config("lbfgs", schedule="constant", warmup=0.0, **values)
    trial = train(loop, make_spec(50, 1), config)
    assert trial.run.taken == len(calls) == 50
    assert trial.run.turns == 7


def test_a_closure_of_any_other_optimizer_costs_a_step() -> None:
    plain, closure = train(by_step, SPEC), train(with_closure, SPEC)
    assert plain.run.taken == closure.run.taken == closure.run.turns == STEPS


def evaluating(run: Run) -> None:
    """Reports by the average that a schedule-free optimizer keeps, and trains on without."""
    torch.manual_seed(run.seed)
    model = torch.nn.Linear(4, 1)
    optimizer = run.optimizer(model)
    schedule = run.schedule(optimizer)
    x, y = points()
    for step in run.steps():
        loss = (model(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if run.due(step):
            trained = model.weight.detach().clone()
            with torch.no_grad(), run.evaluation():
                assert not torch.equal(model.weight, trained)
                value = (model(x) - y).square().mean()
            torch.testing.assert_close(model.weight.detach(), trained)
            run.report(step, val_loss=value)


@pytest.mark.parametrize("name", ["schedulefree_sgd", "schedulefree_adamw"])
@pytest.mark.parametrize("step", [6, 7, 20])
def test_weights_to_evaluate_are_in_place_within_an_evaluation_alone(name: str, step: int) -> None:
    config = make_config(name, lr=0.01, schedule="one_cycle")
    whole = train(evaluating, SPEC, config)
    assert whole.outcome.ending == "complete"
    check_continued(whole, *stop_and_go(evaluating, step, SPEC, config))


@pytest.mark.parametrize("measured", [True, False])
def test_an_optimizer_is_told_how_long_it_trains(measured: bool) -> None:
    def loop(run: Run) -> float:
        if measured:
            run.measure(EPOCH)
        optimizer = run.optimizer(torch.nn.Linear(4, 1))
        seen.append(optimizer.start_warm_down + optimizer.num_warm_down_iterations)  # type: ignore[attr-defined]
        return 0.0

    seen: list[int] = []
    spec = make_spec(budget={"epochs": 4, "evaluations": 2})
    if measured:
        train(loop, spec, make_config("ranger21"))
        assert seen == [4 * EPOCH]
    else:
        with pytest.raises(SpecError, match="ranger21 is built with the steps of a full trial"):
            train(loop, spec, make_config("ranger21"))


def thawing(run: Run) -> None:
    """Trains its head alone for two epochs, and then everything."""
    model, loader = Net(), batches_of()
    model.body.requires_grad_(False)
    before = model.body.weight.detach().clone()
    optimizer = run.optimizer(model)
    for step, batch in run.steps(loader):
        if step == 2 * EPOCH:
            model.body.requires_grad_(True)
        differentiate(optimizer, model, batch)
        optimizer.step()
        moved = (model.body.weight - before).abs().max()
        run.report(step, val_loss=evaluate(model), moved=moved)


@pytest.mark.parametrize("optimizer", ["adam", "momentum", "muon", "lookahead(adam)"])
@pytest.mark.parametrize("step", [2 * EPOCH - 1, 2 * EPOCH + 3])
def test_what_a_loop_thaws_trains_from_then_on_also_after_an_interruption(
    optimizer: str, step: int
) -> None:
    config = make_config(optimizer)
    whole = train(thawing, SPEC, config)
    moved = [evaluation.metrics["moved"] > 0 for evaluation in whole.evaluations]
    assert moved == [False, False, True, True]
    check_continued(whole, *stop_and_go(thawing, step, SPEC, config))
