"""A trial that averages its weights: what it is evaluated by, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from torch.utils.data import DataLoader, TensorDataset

from tests.training.loops import EPOCH, STEPS, Net, batches_of, evaluate, points
from tests.training.trials import (
    Line,
    Recorder,
    averaged,
    check_continued,
    make_config,
    make_spec,
    prepare_workload,
    stop_and_go,
    train,
)
from tuner.errors import WorkloadError
from tuner.training.prepared_workload import PreparedWorkload
from tuner.training.run import Run
from tuner.training.seeds import BatchOrder

SPEC = make_spec(STEPS, 4)
EMA = averaged(make_config(lr=0.05), "ema", decay=0.8)
LATE = averaged(make_config(lr=0.05), "swa", start=0.6, interval=3)
"""Its average begins after step 17 of 28."""


class Normed(nn.Module):
    """A network with BatchNorm, in which it has seen some steps of noise before."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.2))
        self.head = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.body(x)))
        return out


class NormedLine(Line):
    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(0.1), nn.Linear(8, 1))


def differentiate(optimizer: torch.optim.Optimizer, model: nn.Module, batch: Any) -> Any:
    optimizer.zero_grad()
    loss = mse_loss(model(batch[0]), batch[1])
    loss.backward()
    return loss


def over_loader(run: Run, model: nn.Module | None = None) -> None:
    model, loader = model or Net(), batches_of()
    optimizer = run.optimizer(model)
    schedule = run.schedule(optimizer, loader)
    for step, batch in run.steps(loader):
        differentiate(optimizer, model, batch)
        optimizer.step()
        schedule.step()
        if run.due(step):
            with run.evaluation(loader):
                val_loss = evaluate(model)
            run.report(step, val_loss=val_loss)
    run.compare_average(lambda: evaluate(model), loader)


def over_loader_with_norms(run: Run) -> None:
    over_loader(run, Normed())


def with_closure(run: Run) -> None:
    model, loader = Net(), batches_of()
    optimizer = run.optimizer(model)
    schedule = run.schedule(optimizer, loader)
    for step, batch in run.steps(loader):
        optimizer.step(partial(differentiate, optimizer, model, batch))
        schedule.step()
        with run.evaluation():
            val_loss = evaluate(model)
        run.report(step, val_loss=val_loss)


def adversarial(run: Run) -> None:
    """Two models, which share nothing but the metric."""
    maker, judge = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4)), Net()
    optimizers = [run.optimizer(maker), run.optimizer(judge)]
    for step in run.steps():
        for optimizer in optimizers:
            optimizer.zero_grad()
        made = maker(torch.randn(16, 2))
        (judge(made).square().mean() + made.mean()).backward()
        for optimizer in optimizers:
            optimizer.step()
        with run.evaluation(range(3), forward=lambda _: maker(torch.randn(16, 2))):
            made = maker.eval()(torch.ones(4, 2))
            val_loss = judge.eval()(made).square().mean().item()
        maker.train()
        judge.train()
        run.report(step, val_loss=val_loss)


LOOPS: dict[str, Callable[[Run], Any]] = {
    "over_loader": over_loader,
    "over_loader_with_norms": over_loader_with_norms,
    "with_closure": with_closure,
    "adversarial": adversarial,
}


@pytest.mark.parametrize("config", [EMA, LATE], ids=["ema", "swa"])
@pytest.mark.parametrize("name", list(LOOPS))
class TestEveryLoop:
    # Before an average begins, just as it does, at and after a report, and in mid-epoch.
    @pytest.mark.parametrize("step", [3, 16, 17, 18, 21, 24])
    def test_it_continues_as_if_never_stopped(self, name: str, config: Any, step: int) -> None:
        loop = LOOPS[name]
        whole = train(loop, SPEC, config)
        stopped, continued = stop_and_go(loop, step, SPEC, config)
        check_continued(whole, stopped, continued)
        assert continued.run.average_line == whole.run.average_line

    def test_the_weights_it_trains_are_those_of_a_trial_that_averages_nothing(
        self, name: str, config: Any
    ) -> None:
        plain = train(LOOPS[name], SPEC, make_config(lr=0.05))
        averaging = train(LOOPS[name], SPEC, config)
        assert torch.equal(plain.parameters, averaging.parameters)
        assert plain.values != averaging.values


@pytest.mark.parametrize("step", [7, 19])
def test_lbfgs_is_averaged_by_what_its_steps_cost(step: int) -> None:
    lbfgs = make_config("lbfgs", lr=0.1, max_iter=4, schedule="constant", warmup=0.0)
    config = averaged(lbfgs, "swa", start=0.5, interval=2)
    whole = train(with_closure, SPEC, config)
    check_continued(whole, *stop_and_go(with_closure, step, SPEC, config))
    # Each of its steps costs four or five, more than the interval.
    [average] = whole.run.state.state_dict()["averages"]
    assert 2 <= average["count"] <= 4


def test_a_trial_is_evaluated_by_its_last_weights_until_its_average_begins() -> None:
    plain, late = train(over_loader, SPEC, make_config(lr=0.05)), train(over_loader, SPEC, LATE)
    same = [a == b for a, b in zip(plain.values, late.values, strict=True)]
    assert plain.steps_evaluated == [7, 14, 21, 28]
    assert same == [True, True, False, False]


@pytest.mark.parametrize("net", [Net, Normed])
def test_what_is_evaluated_is_what_torch_s_averaged_model_gives(
    net: Callable[[], nn.Module],
) -> None:
    expected: list[float] = []

    def loop(run: Run) -> None:
        model = net()
        reference = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8))
        optimizer = run.optimizer(model)
        schedule = run.schedule(optimizer)
        # In order, so that both see the same batches; of one size, so that dropout is all that
        # is random, and that changes no statistics before it.
        loader = DataLoader(TensorDataset(*points()), batch_size=16)
        for step in run.steps():
            differentiate(optimizer, model, points())
            optimizer.step()
            schedule.step()
            reference.update_parameters(model)
            if run.due(step):
                with run.evaluation(loader):
                    run.report(step, val_loss=evaluate(model))
                state = torch.get_rng_state()
                update_bn(loader, reference)
                torch.set_rng_state(state)
                expected.append(evaluate(reference))

    assert train(loop, SPEC, EMA).values == pytest.approx(expected, rel=1e-6)


def test_the_time_of_statistics_is_that_of_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(float(second) for second in range(10**6))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    trial = train(over_loader_with_norms, SPEC, EMA)
    assert trial.run.timing.eval_s > 0
    alive = [step for step in trial.recorder.steps if trial.recorder.steps.count(step) > EPOCH]
    assert set(alive) == {7, 14, 21, 28}


# What it refuses.


def test_a_loop_that_measures_something_else_is_told_so() -> None:
    def loop(run: Run) -> None:
        model = Net()
        optimizer = run.optimizer(model)
        for step in run.steps():
            differentiate(optimizer, model, points())
            optimizer.step()
            run.report(step, val_loss=evaluate(model))

    with pytest.raises(WorkloadError, match=r"averages its weights.*with run\.evaluation\(\):"):
        train(loop, SPEC, EMA)
    assert train(loop, SPEC, make_config()).outcome.ending == "complete"


def test_a_loop_that_only_returns_something_else_is_told_so() -> None:
    def loop(run: Run) -> float:
        model = Net()
        optimizer = run.optimizer(model)
        for _ in run.steps():
            differentiate(optimizer, model, points())
            optimizer.step()
        if run.config is measured:
            with run.evaluation():
                return evaluate(model)
        return evaluate(model)

    measured = averaged(make_config(lr=0.05))
    with pytest.raises(WorkloadError, match=r"averages its weights"):
        train(loop, SPEC, EMA)
    assert train(loop, SPEC, measured).outcome.ending == "complete"


def evaluating(*given: Any, **named: Any) -> Callable[[Run], None]:
    def loop(run: Run) -> None:
        model = Normed()
        optimizer = run.optimizer(model)
        for step in run.steps():
            differentiate(optimizer, model, points())
            optimizer.step()
            with run.evaluation(*given, **named):
                val_loss = evaluate(model)
            run.report(step, val_loss=val_loss)

    return loop


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((), r"has BatchNorm.*with run\.evaluation\(loader\)"),
        (([],), "no batches to measure the statistics"),
        (([{"inputs": points()[0]}],), r"how a dict goes through the model: tell it"),
    ],
)
def test_statistics_that_cannot_be_measured_are_refused(given: Any, message: str) -> None:
    with pytest.raises(WorkloadError, match=message):
        train(evaluating(*given), SPEC, EMA)
    assert train(evaluating(*given), SPEC, make_config()).outcome.ending == "complete"


def test_batches_may_be_plain_inputs() -> None:
    inputs, _ = points()
    plain = train(evaluating(list(inputs.split(16))), SPEC, EMA)
    paired = train(evaluating([(part, None) for part in inputs.split(16)]), SPEC, EMA)
    assert plain.values == paired.values


def test_an_error_in_the_statistics_leaves_the_model_as_it_was() -> None:
    seen: list[Any] = []

    def loop(run: Run) -> None:
        model = Normed()
        optimizer = run.optimizer(model)
        for _ in run.steps():
            differentiate(optimizer, model, points())
            optimizer.step()
            model.body[2].eval()
            before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            with pytest.raises(ZeroDivisionError), run.evaluation([0], forward=lambda n: 1 / n):
                pass
            same = all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
            modes = [model.training, model.body[1].training, model.body[2].training]
            seen.append((same, model.body[1].momentum, modes))

    train(loop, make_spec(3, 1), EMA)
    assert seen == [(True, 0.1, [True, True, False])] * 3


# A workload class, in our loop.


@pytest.mark.parametrize("workload", [Line, NormedLine])
@pytest.mark.parametrize("config", [EMA, LATE], ids=["ema", "swa"])
@pytest.mark.parametrize("step", [5, 25, 33])
def test_a_workload_class_continues_as_if_never_stopped(
    workload: type[Line], config: Any, step: int
) -> None:
    prepared = prepare_workload(workload())
    whole = train(prepared, config=config)
    stopped, continued = stop_and_go(prepared, step, config=config)
    check_continued(whole, stopped, continued)
    assert continued.run.average_line == whole.run.average_line


def test_our_loop_measures_statistics_over_the_batches_of_an_epoch() -> None:
    prepared = prepare_workload(NormedLine())
    trial = train(prepared, make_spec(40, 1), EMA)
    model = prepared.build_model(0)
    state = trial.run.state.state_dict()
    model.load_state_dict(state["models"][0] | state["averages"][0]["weights"])
    order = BatchOrder(prepared.train_examples, 32, 0, prepared.device)
    update_bn([prepared.batch(order(turn)) for turn in range(order.steps_per_epoch)], model)
    assert trial.values == [pytest.approx(prepared.evaluate(model)["val_loss"], rel=1e-6)]


@pytest.mark.parametrize("workload", [Line, NormedLine])
def test_the_line_runs_from_the_last_weights_to_what_was_reported(workload: type[Line]) -> None:
    prepared = prepare_workload(workload())
    trial = train(prepared, config=averaged(make_config(lr=0.02), decay=0.9))
    places, values = zip(*trial.run.average_line, strict=True)
    assert places == pytest.approx([k / 6 for k in range(7)])
    assert values[-1] == trial.values[-1]
    assert len(set(values)) == 7
    if workload is Line:
        assert values[0] == train(prepared, config=make_config(lr=0.02)).values[-1]
        # The loss of a line is a parabola in its weights, and so on every line through them.
        third = torch.tensor(values, dtype=torch.float64).diff(n=3)
        assert third.abs().max() < 1e-5 * max(values)


def test_a_trial_that_averages_nothing_measures_no_line(parabola: PreparedWorkload) -> None:
    assert train(parabola).run.average_line == []


def test_a_trial_that_is_pruned_measures_no_line(parabola: PreparedWorkload) -> None:
    trial = train(parabola, config=EMA, recorder=Recorder(prune_at=20))
    assert trial.outcome.ending == "pruned"
    assert trial.run.average_line == []
