"""What is seen of a workload before a study depends on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.training.trials import CPU, Line, make_config, make_spec, prepare_workload, train
from tuner.domain.spec import StudySpec
from tuner.errors import SpecError, WorkloadError
from tuner.training.prepared_workload import PreparedWorkload
from tuner.training.rehearsal import prepare, prepare_checked, probe, rehearse
from tuner.training.run import Run
from tuner.training.workload import Batch, Data


def spec_of(workload: str, **tables: Any) -> StudySpec:
    return make_spec(study={"name": "s", "workload": f"{__name__}:{workload}"}, **tables)


# Workload classes.


def test_probing_returns_the_metrics_of_the_untrained_model(digits: PreparedWorkload) -> None:
    metrics = probe(digits, make_spec())
    assert metrics.keys() == {"val_loss", "val_accuracy"}
    assert 2 < metrics["val_loss"] < 3


def test_probing_names_the_metrics_there_are(digits: PreparedWorkload) -> None:
    spec = make_spec(study={"name": "s", "workload": "a:B", "metric": "val_los"})
    message = r"study\.metric = 'val_los': a:B returns val_accuracy, val_loss"
    with pytest.raises(SpecError, match=message):
        probe(digits, spec)


def test_probing_refuses_a_batch_larger_than_the_data() -> None:
    spec = make_spec(train={"batch_size": {"choices": [16, 201]}})
    with pytest.raises(SpecError, match=r"train\.batch_size = 201: .* has only 200"):
        probe(prepare_workload(Line()), spec)


def _vector(self: Line, model: nn.Module, batch: Batch) -> Any:
    return model(batch[0])


def _number(self: Line, model: nn.Module, batch: Batch) -> Any:
    return 1.0


def _detached(self: Line, model: nn.Module, batch: Batch) -> Any:
    return model(batch[0]).mean().detach()


@pytest.mark.parametrize("loss", [_vector, _number, _detached])
def test_probing_refuses_a_loss_that_is_no_scalar_with_a_gradient(loss: Any) -> None:
    workload = type("Own", (Line,), {"loss": loss})()
    with pytest.raises(SpecError, match=r"loss\(\) must return a scalar tensor with a gradient"):
        probe(prepare_workload(workload), make_spec())


class Vector(nn.Module):
    """A model of no matrix and no embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * self.weight).sum(1, keepdim=True)


@pytest.mark.parametrize("optimizer", ["muon", "sparse_adam"])
def test_probing_refuses_an_optimizer_that_cannot_train_the_model(optimizer: str) -> None:
    prepared = prepare_workload(type("Own", (Line,), {"model": lambda self: Vector()})())
    spec = make_spec(space={"optimizers": ["adam", optimizer]})
    with pytest.raises(WorkloadError, match=f"leave {optimizer} out of space.optimizers"):
        probe(prepared, spec)


def test_probing_refuses_a_metric_to_show_that_is_none() -> None:
    spec = make_spec(study={"name": "a", "workload": "b:C", "show": ["val_loss", "f1"]})
    with pytest.raises(SpecError, match=r"study\.show: 'f1' is no metric .* gives val_loss"):
        probe(prepare_workload(Line()), spec)


def test_probing_refuses_a_dense_optimizer_of_sparse_gradients() -> None:
    class Words(Line):
        def model(self) -> nn.Module:
            return nn.Sequential(nn.Embedding(8, 1, sparse=True))

        def loss(self, model: nn.Module, batch: Batch) -> Any:
            return model((batch[0][:, 0] > 0).long()).sum()

    with pytest.raises(WorkloadError, match=r"adamw cannot train this model: .*\. Leave adamw out"):
        probe(prepare_workload(Words()), make_spec(space={"optimizers": ["adamw"]}))


def test_probing_refuses_a_group_that_takes_nothing() -> None:
    spec = make_spec(train={"groups": [{"name": "tail", "match": "tail.*"}]})
    with pytest.raises(WorkloadError, match=r"'tail': match = 'tail\.\*' takes no parameter"):
        probe(prepare_workload(Line()), spec)


class Broken(Line):
    def data(self) -> Data:
        raise OSError("no such disk")


class Wordy(Line):
    def metrics(self, model: nn.Module, batch: Batch) -> Any:
        return "good"


@pytest.mark.parametrize("check", [prepare, prepare_checked])
def test_code_that_raises_is_a_fault_of_the_workload_with_its_place(check: Any) -> None:
    with pytest.raises(WorkloadError, match=r"does not run: OSError: no such disk") as caught:
        check(spec_of("Broken"), CPU)
    assert f"{Path(__file__).name}:" in str(caught.value)
    assert "in data" in str(caught.value)


def test_a_broken_contract_names_the_workload() -> None:
    with pytest.raises(SpecError, match=r"study\.workload = '.*:Wordy': metrics\(\) must return"):
        prepare_checked(spec_of("Wordy"), CPU)


def test_a_workload_that_runs_is_returned_as_a_loop() -> None:
    loop = prepare_checked(spec_of("Line"), CPU)
    assert train(loop).outcome.ending == "complete"


# Training loops.


def reporting(run: Run) -> None:
    model = nn.Linear(1, 1)
    optimizer = run.optimizer(model)
    for step in run.steps():
        optimizer.step()
        run.report(step, val_loss=step)


def returning(run: Run) -> float:
    run.optimizer(nn.Linear(1, 1))
    return 0.5


def stubborn(run: Run) -> float:
    """Trains with an optimizer of its own."""
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    for _ in range(3):
        optimizer.step()
        run.report(val_loss=1.0)
    return 0.5


def skipping(run: Run) -> None:
    """Takes no step at first, as a gradient scaler may."""
    run.optimizer(nn.Linear(1, 1))
    for step in run.steps():
        run.report(step, val_loss=1.0)


def counting(run: Run) -> None:
    optimizer = run.optimizer(nn.Linear(1, 1))
    for step in range(10**9):
        optimizer.step()
        run.report(step, val_loss=1.0)


def matrixless(run: Run) -> float:
    run.optimizer(nn.LayerNorm(3))
    return 0.5


def silent(run: Run) -> None:
    list(run.steps())


def misnaming(run: Run) -> None:
    for step in run.steps():
        run.report(step, loss=1.0)


def failing(run: Run) -> None:
    raise ZeroDivisionError("in the user's loop")


def leaving(run: Run) -> None:
    raise GeneratorExit("for good")


def nested(run: Run) -> None:
    """Takes its own steps, and reports long after a rehearsal's."""
    optimizer = run.optimizer(nn.Linear(1, 1))
    for epoch in range(3):
        for _ in range(10):
            optimizer.step()
        run.report(epoch * 10 + 9, val_loss=1.0)
    raise AssertionError("its rehearsal is over after the first report")


def needing_length(run: Run) -> None:
    run.schedule(run.optimizer(nn.Linear(1, 1)))


@pytest.mark.parametrize(
    ("loop", "metrics"),
    [
        (reporting, {"val_loss": 1.0}),
        (returning, {"val_loss": 0.5}),
        (counting, {"val_loss": 1.0}),
        (skipping, {"val_loss": 1.0}),
    ],
)
def test_a_loop_is_rehearsed_for_two_steps(loop: Any, metrics: dict[str, float]) -> None:
    told, run = rehearse(loop, make_spec(10**6), make_config(), CPU)
    assert told == metrics
    assert run.taken <= 2


def test_a_loop_that_takes_its_own_steps_is_rehearsed_until_it_reports() -> None:
    assert prepare_checked(spec_of("nested"), CPU) is nested


def test_a_loop_that_runs_is_returned_as_it_is() -> None:
    assert prepare(spec_of("reporting"), CPU) is prepare_checked(spec_of("reporting"), CPU)


@pytest.mark.parametrize(
    ("loop", "error", "said"),
    [
        (
            "silent",
            SpecError,
            r":silent': the training loop neither reported nor returned val_loss",
        ),
        ("stubborn", WorkloadError, r"use the one that run\.optimizer\(model\) returns"),
        ("misnaming", WorkloadError, r"given loss, but study\.metric is 'val_loss'"),
        ("failing", WorkloadError, r"does not run: ZeroDivisionError.*in failing"),
        ("leaving", WorkloadError, r"does not run: GeneratorExit: for good.*in leaving"),
    ],
)
def test_a_loop_that_does_not_run_says_why(loop: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        prepare_checked(spec_of(loop), CPU)
    assert callable(prepare(spec_of(loop), CPU))


@pytest.mark.parametrize("loop", ["needing_length", "counting"])
def test_a_loop_without_a_loader_needs_a_budget_of_steps(loop: str) -> None:
    with pytest.raises(
        SpecError, match=r"set budget\.epoch_steps to the steps of an epoch, or .* budget\.steps"
    ):
        prepare_checked(spec_of(loop, budget={"epochs": 3}), CPU)


def test_an_optimizer_that_needs_a_closure_asks_for_one() -> None:
    spec = spec_of("reporting", space={"optimizers": ["adam", "lbfgs"]})
    with pytest.raises(
        WorkloadError, match=r"lbfgs needs a closure: call optimizer\.step\(closure"
    ):
        prepare_checked(spec, CPU)


def test_an_optimizer_that_takes_matrices_alone_is_rehearsed_too() -> None:
    spec = spec_of("matrixless", space={"optimizers": ["sgd", "muon"]})
    with pytest.raises(WorkloadError, match="leave muon out"):
        prepare_checked(spec, CPU)


def test_a_loop_that_diverges_at_once_runs_nevertheless() -> None:
    def loop(run: Run) -> Any:
        run.optimizer(nn.Linear(1, 1))
        return torch.tensor(float("nan"))

    metrics, _ = rehearse(loop, make_spec(), make_config(), CPU)
    assert metrics == {}


class NotFinite(Line):
    def loss(self, model: nn.Module, batch: Batch) -> Any:
        return super().loss(model, batch) * float("nan")


class Endless(Line):
    def loss(self, model: nn.Module, batch: Batch) -> Any:
        return super().loss(model, batch) + float("inf")


@pytest.mark.parametrize(("workload", "value"), [("NotFinite", "nan"), ("Endless", "inf")])
def test_a_loss_that_is_not_finite_before_training_is_refused(workload: str, value: str) -> None:
    with pytest.raises(WorkloadError, match=f"{workload} is {value} on its first batch"):
        prepare_checked(spec_of(workload), CPU)


def nan_at_once(run: Run) -> None:
    weights = nn.Linear(1, 1)
    optimizer = run.optimizer(weights)
    for _ in run.steps():
        optimizer.step()
        run.report(val_loss=float("nan"))


def nan_returned(run: Run) -> float:
    optimizer = run.optimizer(nn.Linear(1, 1))
    for _ in run.steps():
        optimizer.step()
    return float("inf")


@pytest.mark.parametrize("workload", ["nan_at_once", "nan_returned"])
def test_a_loop_whose_metric_is_never_finite_is_refused(workload: str) -> None:
    with pytest.raises(WorkloadError, match=f"{workload} gives a val_loss that is infinite or NaN"):
        prepare_checked(spec_of(workload), CPU)


def too_fast(run: Run) -> None:
    """Diverges at the default learning rate, and is fine below it."""
    optimizer = run.optimizer(nn.Linear(1, 1))
    for _ in run.steps():
        optimizer.step()
        rate = optimizer.param_groups[0]["lr"]
        run.report(val_loss=float("nan") if rate > 1e-5 else 1.0)


def test_a_loop_that_diverges_by_its_learning_rate_is_accepted() -> None:
    prepare_checked(spec_of("too_fast"), CPU)


class Layer(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ torch.ones(7, 1)


class Mistaken(Line):
    def model(self) -> nn.Module:
        return nn.Sequential(Layer(), nn.Linear(1, 1))


def test_what_torch_raises_in_a_model_is_told_with_the_line_of_the_model() -> None:
    with pytest.raises(WorkloadError, match=r"cannot be multiplied") as caught:
        prepare_checked(spec_of("Mistaken"), CPU)
    assert f"{Path(__file__).name}:" in str(caught.value)
    assert "in forward)" in str(caught.value)


def test_a_message_that_names_a_key_has_no_second_prefix() -> None:
    for tables, key in (
        ({"study": {"metric": "f1"}}, "study.metric = 'f1': "),
        ({"train": {"batch_size": 10**6}}, "train.batch_size = 1000000: "),
    ):
        study = {"name": "s", "workload": f"{__name__}:Line", **tables.pop("study", {})}
        with pytest.raises(SpecError) as caught:
            prepare_checked(make_spec(study=study, **tables), CPU)
        assert str(caught.value).startswith(key)
        assert "study.workload" not in str(caught.value)
