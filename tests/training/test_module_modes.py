"""Which modules of a model train, and which stay as in evaluation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.training.trials import (
    CPU,
    Line,
    averaged,
    make_config,
    make_spec,
    prepare_workload,
    train,
)
from tuner.errors import SpecError
from tuner.training.loop import Step
from tuner.training.module_modes import Modes, begin_training, evaluating
from tuner.training.rehearsal import Rehearsal
from tuner.training.run import Run
from tuner.training.seeds import BatchOrder, derive_seed, seed_torch
from tuner.training.workload import Batch

TREES = st.recursive(st.builds(nn.ReLU), lambda parts: st.lists(parts).map(nn.ModuleList))


class Stubborn(nn.Sequential):
    """Keeps its norms in eval mode whatever it is told, as some backbones do."""

    def train(self, mode: bool = True) -> Stubborn:
        super().train(mode)
        for module in self:
            module.training &= not isinstance(module, nn.BatchNorm1d)
        return self


class Partly(Line):
    """A model whose first part is as pretrained ones are: frozen, its norm and dropout at rest."""

    def model(self) -> nn.Module:
        backbone = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
        head = nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 1))
        return nn.Sequential(backbone.requires_grad_(False).eval(), head)

    def metrics(self, model: Any, batch: Batch) -> Any:
        return {
            "val_loss": self.loss(model, batch),
            "moved": model[0][1].running_mean.abs().sum(),
            "learned": model[1][0].running_mean.abs().sum(),
        }


def modes_of(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


@given(TREES, st.data())
def test_modes_are_put_back_whatever_they_were(model: nn.Module, data: st.DataObject) -> None:
    for module in model.modules():
        module.training = data.draw(st.booleans())
    before = modes_of(model)

    modes = Modes(model)
    for module in model.modules():
        module.training = data.draw(st.booleans())
    modes.put_back()

    assert modes_of(model) == before


def test_an_evaluation_that_raises_leaves_modes_as_they_were() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    with evaluating(model):
        assert modes_of(model) == [False] * 3
    with pytest.raises(ZeroDivisionError), evaluating(model):
        raise ZeroDivisionError
    assert modes_of(model) == [True, True, False]


def test_what_a_model_puts_into_eval_mode_stays_so() -> None:
    backbone = nn.Sequential(nn.Dropout(), nn.Dropout()).eval()
    backbone[1].train()
    assert modes_of(begin_training(nn.Sequential(backbone, nn.Dropout()))) == [
        True,
        False,
        False,
        True,
        True,
    ]


def test_a_model_that_comes_in_eval_mode_trains_as_a_whole() -> None:
    assert all(modes_of(begin_training(nn.Sequential(nn.Dropout(), nn.Linear(1, 1)).eval())))


def test_modules_that_keep_norms_in_eval_mode_are_asked() -> None:
    model = begin_training(nn.Sequential(Stubborn(nn.BatchNorm1d(2), nn.Dropout())))
    assert modes_of(model) == [True, True, False, True]
    with evaluating(model):
        pass
    assert modes_of(model) == [True, True, False, True]


def test_a_model_that_leaves_open_what_trains_is_refused() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Dropout()).eval()
    model[1].train()
    with pytest.raises(SpecError, match="in eval mode, but its 1 is in training mode"):
        begin_training(model)


# Trials.


def test_a_frozen_part_trains_as_in_a_loop_that_leaves_it_alone() -> None:
    prepared, spec, config = prepare_workload(Partly(), "float64"), make_spec(40, 2), make_config()
    run = Run(spec, config, device=CPU, reporter=Rehearsal())
    model = prepared.build_model(0)
    optimizer = run.optimizer(model)
    schedule = run.schedule(optimizer)
    step = Step(run, prepared, model, optimizer)
    order = BatchOrder(prepared.train_examples, 32, 0, CPU)
    seed_torch(derive_seed(0, "train"))
    expected = []
    for number in range(40):
        model.train()
        model[0].eval()  # type: ignore[index]
        step(prepared.batch(order(number)))
        schedule.step()
        if number in (19, 39):
            model.eval()
            with torch.no_grad():
                expected.append(float(prepared.workload.loss(model, prepared.data.val)))

    trial = train(prepared, spec, config)

    assert trial.values == pytest.approx(expected, rel=1e-12)
    assert [e.metrics["moved"] for e in trial.evaluations] == [0, 0]


def test_an_average_leaves_frozen_norms_alone() -> None:
    trial = train(prepare_workload(Partly()), config=averaged(make_config(lr=0.05), decay=0.8))
    assert [e.metrics["moved"] for e in trial.evaluations] == [0] * 4
    assert all(e.metrics["learned"] > 0 for e in trial.evaluations)


@pytest.mark.parametrize("evaluates_in", ["training mode", "eval mode"])
def test_in_a_loop_of_ones_own_an_average_leaves_frozen_norms_alone(evaluates_in: str) -> None:
    workload, seen = Partly(), []
    x, y = workload.data().train

    def loop(run: Run) -> None:
        model: Any = workload.model()
        optimizer = run.optimizer(model)
        for step in run.steps():
            model.train()
            model[0].eval()
            optimizer.zero_grad()
            workload.loss(model, (x, y)).backward()
            optimizer.step()
            model.train(evaluates_in == "training mode")
            before = modes_of(model)
            with run.evaluation([x]):
                seen.append(model[0][1].running_mean.abs().sum().item())
                learned = model[1][0].running_mean.abs().sum().item()
                expected = model[0][0](x).mean(0).abs().sum().item()
            assert modes_of(model) == before
            run.report(step, val_loss=learned / expected)

    trial = train(loop, config=averaged(make_config(lr=0.05), decay=0.8))

    assert seen == [0] * 40
    assert trial.values == pytest.approx([1.0] * 4, rel=1e-4)
