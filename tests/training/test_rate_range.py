from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tests.training.loops import Net, batches_of, over_loader
from tests.training.trials import CPU, Line, make_spec, prepare_workload
from tuner.analysis.rate_range import RateCurve
from tuner.errors import SpecError, WorkloadError
from tuner.training.loop import TrainingLoop, WorkloadLoop
from tuner.training.rate_range import measure_rates
from tuner.training.run import Run


def measure(loop: TrainingLoop, optimizer: str = "sgd", **given: Any) -> RateCurve:
    spec = make_spec(
        study={"name": "a", "workload": "b:C"},
        space={"optimizers": ["sgd", "muon", "yellowfin", "lbfgs"], "schedules": ["cosine"]},
    )
    asked: dict[str, Any] = {"low": 1e-5, "high": 100.0, "steps": 60} | given
    return measure_rates(loop, spec, optimizer, CPU, **asked)


def loop_of(body: Callable[[Run, nn.Module, torch.optim.Optimizer], None]) -> TrainingLoop:
    def loop(run: Run) -> None:
        model = Net()
        body(run, model, run.optimizer(model))

    return loop


def test_a_class_is_trained_at_rising_rates_until_it_diverges() -> None:
    curve = measure(WorkloadLoop(prepare_workload(Line())))
    assert curve.diverged
    assert len(curve.rates) == len(curve.losses) < 60
    assert curve.rates[0] == 1e-5
    ratios = [b / a for a, b in zip(curve.rates, curve.rates[1:], strict=False)]
    assert ratios == pytest.approx([1e7 ** (1 / 59)] * len(ratios))
    assert curve.find_range() is not None


def test_it_is_the_same_each_time() -> None:
    loop = WorkloadLoop(prepare_workload(Line()))
    assert measure(loop) == measure(loop)


def test_rates_are_those_the_optimizer_steps_with_whatever_the_schedule_says() -> None:
    stepped: list[float] = []

    def body(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.register_step_post_hook(lambda one, *_: stepped.append(one.param_groups[0]["lr"]))
        schedule = run.schedule(optimizer)
        for _ in run.steps():
            optimizer.zero_grad()
            model(torch.ones(4, 4)).sum().backward()
            optimizer.step()
            schedule.step()

    curve = measure(loop_of(body), high=1e-3)
    assert stepped == pytest.approx(curve.rates)
    assert len(stepped) == 60


def test_groups_keep_their_ratios() -> None:
    seen: list[list[float]] = []

    def body(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.register_step_post_hook(
            lambda one, *_: seen.append([group["lr"] for group in one.param_groups])
        )
        over = batches_of()
        for _, (x, y) in run.steps(over):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()

    measure(loop_of(body), "muon", high=1e-2)
    assert len(seen[0]) > 1
    ratios = {round(one[1] / one[0], 9) for one in seen}
    assert len(ratios) == 1


def test_nested_loops_end_with_the_test_and_parts_of_a_batch_are_added_up() -> None:
    parts: list[float] = []

    def body(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        while True:
            optimizer.zero_grad()
            for _ in range(2):
                part = 0.5 * model(torch.ones(4, 4)).square().mean()
                parts.append(part.item())
                part.backward()
            optimizer.step()

    curve = measure(loop_of(body), high=1e-4)
    assert len(curve.losses) == 60
    assert curve.losses[0] == pytest.approx(sum(parts[:2]))


def test_numbers_of_the_loop_stand_in_for_its_loss() -> None:
    heard = measure(over_loader, high=1e-2)
    reported = measure(over_loader, high=1e-2, metric="val_loss")
    assert len(reported.losses) == len(heard.losses) == 60
    assert reported.losses != heard.losses
    with pytest.raises(WorkloadError, match=r"--metric f1: .* neither logs nor reports it"):
        measure(over_loader, metric="f1")


def test_a_loss_that_is_never_heard_is_asked_for() -> None:
    def body(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for _ in run.steps():
            for parameter in model.parameters():
                parameter.grad = torch.ones_like(parameter)
            optimizer.step()
            run.log(train_loss=1.0)

    with pytest.raises(WorkloadError, match="--metric train_loss"):
        measure(loop_of(body))
    assert set(measure(loop_of(body), metric="train_loss").losses) == {1.0}


def test_a_loop_with_an_optimizer_of_its_own_is_refused() -> None:
    def loop(run: Run) -> float:
        model = Net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model(torch.ones(4, 4)).sum().backward()
        optimizer.step()
        return 1.0

    with pytest.raises(WorkloadError, match="optimizer of its own"):
        measure(loop)


def test_a_loss_that_is_not_finite_ends_the_test_and_is_left_out() -> None:
    def body(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for step in run.steps():
            optimizer.zero_grad()
            (model(torch.ones(4, 4)).sum() * (math.nan if step == 20 else 1.0)).backward()
            optimizer.step()

    curve = measure(loop_of(body), high=1e-4)
    assert (len(curve.losses), curve.diverged) == (20, True)


@pytest.mark.parametrize(("optimizer", "why"), [("yellowfin", "itself"), ("lbfgs", "several")])
def test_optimizers_that_have_no_such_range_are_refused(optimizer: str, why: str) -> None:
    with pytest.raises(SpecError, match=why):
        measure(over_loader, optimizer)


def test_code_that_raises_is_told_with_its_place() -> None:
    def body(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        raise ZeroDivisionError("of its own")

    with pytest.raises(WorkloadError, match=r"does not run: ZeroDivisionError: of its own \("):
        measure(loop_of(body))
