from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from tests.training.trials import Droopy, Line, prepare_workload
from tuner.errors import SpecError
from tuner.training.workload import Batch


class Large(Line):
    """A line that is evaluated in three parts."""

    val_rows = 5000

    def metrics(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        return {"mean": batch[0].mean(), "val_loss": self.loss(model, batch)}


def test_an_evaluation_is_the_mean_over_all_examples() -> None:
    prepared = prepare_workload(Large(), "float64")
    model = prepared.build_model(0)
    metrics = prepared.evaluate(model)
    x, y = prepared.data.val
    assert metrics["mean"] == pytest.approx(x.mean().item(), rel=1e-12)
    assert metrics["val_loss"] == pytest.approx(mse_loss(model(x), y).item(), rel=1e-12)


def test_a_long_evaluation_calls_back_after_each_part() -> None:
    prepared, calls = prepare_workload(Large()), []
    prepared.evaluate(prepared.build_model(0), lambda: calls.append(1))
    assert len(calls) == 3


def test_an_evaluation_runs_without_dropout_and_gradients_and_then_trains_on() -> None:
    modes = []

    class Modes(Droopy):
        def metrics(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
            modes.append((model.training, torch.is_grad_enabled()))
            metrics: Mapping[str, Tensor] = super().metrics(model, batch)
            return metrics

    prepared = prepare_workload(Modes())
    model = prepared.build_model(0).train()
    assert prepared.evaluate(model) == prepared.evaluate(model)
    assert modes == [(False, False)] * 2
    assert model.training


def weight_of(model: nn.Module) -> Tensor:
    return model.get_parameter("weight")


def test_a_model_depends_on_the_seed_alone() -> None:
    prepared = prepare_workload(Line())
    first = weight_of(prepared.build_model(3))
    torch.rand(17)
    again, other = (weight_of(prepared.build_model(seed)) for seed in (3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_data_of_another_kind_is_refused() -> None:
    workload = type("Own", (Line,), {"data": lambda self: (1, 2)})()
    with pytest.raises(SpecError, match=r"data\(\) returned tuple: return tuner\.Data"):
        prepare_workload(workload)


def test_a_model_of_another_kind_is_refused() -> None:
    workload = type("Own", (Line,), {"model": lambda self: "a network"})()
    with pytest.raises(SpecError, match=r"model\(\) returned str: return a torch nn\.Module"):
        prepare_workload(workload).build_model(0)


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (3.0, r"metrics\(\) must return a mapping"),
        ({}, r"metrics\(\) must return a mapping"),
        ({"val_loss": 1.0}, r"\['val_loss'\] must be a scalar tensor, but is of type float"),
        ({"val_loss": torch.zeros(2)}, r"\['val_loss'\] must be a scalar .* of shape \(2,\)"),
    ],
)
def test_metrics_that_are_no_scalars_by_name_are_refused(metrics: Any, said: str) -> None:
    prepared = prepare_workload(
        type("Own", (Line,), {"metrics": lambda self, model, batch: metrics})()
    )
    with pytest.raises(SpecError, match=said):
        prepared.evaluate(prepared.build_model(0))
