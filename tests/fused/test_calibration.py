from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from tests.training.trials import Line, make_spec, prepare_workload
from tuner.domain.fuse_plan import FusePlan
from tuner.fused import calibration
from tuner.fused.calibration import Work, calibrate, warm_up
from tuner.fused.compile_costs import CompileCosts
from tuner.fused.eligibility import Refusals
from tuner.training.workload import Batch


class Branching(Line):
    """Its loss depends on values, which no trace can follow."""

    def loss(self, model: nn.Module, batch: Batch) -> Any:
        loss = mse_loss(model(batch[0]), batch[1])
        return loss if loss > 0 else -loss


class Raising(Line):
    """Cannot be differentiated with others."""

    def loss(self, model: nn.Module, batch: Batch) -> Any:
        raise ValueError("the scale is off")


SPACE = {"optimizers": ["sgd", "adam", "momentum"], "schedules": ["constant"]}


def plan_of(workload: Any, trials: int = 100_000, asked: str = "auto", **tables: Any) -> FusePlan:
    prepared, spec = prepare_workload(workload), make_spec(space=SPACE, **tables)
    plan, model = calibrate(prepared, spec, Work(trials, trials, asked), Refusals(prepared, spec))
    assert (model is None) == (plan.lanes == 1)
    return plan


def test_many_small_models_train_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing could pay for compiling.
    monkeypatch.setattr(CompileCosts, "seconds", 1e9)
    plan = plan_of(Line())
    assert plan.lanes >= 64
    assert not plan.compiled
    assert plan.lane_s < plan.single_s
    assert plan.trials == 100_000
    assert "times as many steps" in plan.reason


def test_what_would_be_no_faster_trains_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CompileCosts, "seconds", 1e9)
    monkeypatch.setattr(calibration, "_GAIN", 1e6)
    plan = plan_of(Line(), 10_000)
    assert plan.lanes == 1
    assert "as one would take" in plan.reason


@pytest.mark.parametrize(
    ("workload", "trials", "reason"),
    [
        (Line(), 15, "15 trials are too few for cohorts that learn"),
        (Line(), 20, "s of work are left"),
        (Branching(), 100_000, "the model cannot be stacked"),
        (Raising(), 100_000, "trying it has raised ValueError: the scale is off"),
    ],
)
def test_one_at_a_time_has_a_reason(workload: Any, trials: int, reason: str) -> None:
    plan = plan_of(workload, trials)
    assert plan.lanes == 1
    assert reason in plan.reason


def test_optimizers_without_a_rule_keep_a_study_single() -> None:
    prepared, spec = prepare_workload(Line()), make_spec(space={"optimizers": ["lbfgs"]})
    plan, _ = calibrate(prepared, spec, Work(100_000, 100_000), Refusals(prepared, spec))
    assert plan.reason == "LBFGS has no rule for many lanes at once"


def test_memory_bounds_a_cohort(monkeypatch: pytest.MonkeyPatch) -> None:
    own = calibration._lane_bytes(prepare_workload(Line()), make_spec())
    monkeypatch.setattr(calibration, "_GAIN", 0.0)  # however fast four are
    monkeypatch.setattr(calibration, "free_bytes", lambda device: 5 * own / calibration._MEMORY)
    monkeypatch.setattr(CompileCosts, "seconds", 1e9)
    assert plan_of(Line()).lanes == 4
    assert plan_of(Line(), asked="64").lanes == 5
    monkeypatch.setattr(calibration, "free_bytes", lambda device: own)
    assert plan_of(Line()).reason == "there is no memory for two"


def test_saved_activations_count_as_memory() -> None:
    class Wide(Line):
        def model(self) -> nn.Module:
            return nn.Sequential(nn.Linear(2, 1), nn.Tanh(), nn.Linear(1, 4096), nn.Linear(4096, 1))

    class Long(Wide):
        train_rows = 200

    small = calibration._lane_bytes(prepare_workload(Wide()), make_spec(train={"batch_size": 2}))
    large = calibration._lane_bytes(prepare_workload(Long()), make_spec(train={"batch_size": 200}))
    assert large - small > 3 * 190 * 4096 * 4


def test_a_number_that_is_asked_for_is_taken() -> None:
    plan = plan_of(Line(), 40, asked="6")
    assert plan.lanes == 6
    assert plan.reason.endswith(
        "times as many steps a second as one at a time, traced, as asked for"
    )


def test_speed_is_compared_with_that_of_all_optimizers(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"sgd": 1e-3, "adam": 2e-3, "momentum": 6e-3}
    monkeypatch.setattr(CompileCosts, "seconds", 1e9)
    monkeypatch.setattr(
        calibration._Calibration, "_time_single", lambda self, config: seconds[config.optimizer]
    )
    assert plan_of(Line(), asked="6").single_s == pytest.approx(3e-3)


def test_what_another_worker_found_meanwhile_spares_compiling() -> None:
    prepared, spec = prepare_workload(Line()), make_spec(space=SPACE)
    theirs = FusePlan(8, trials=100_000, reason="as they have found")
    work = Work(100_000, 100_000_000)
    plan, model = calibrate(prepared, spec, work, Refusals(prepared, spec), lambda: theirs)
    assert plan == theirs
    assert model is None


def test_a_plan_is_repeated_without_measuring() -> None:
    prepared, spec = prepare_workload(Line()), make_spec(space=SPACE)
    model = warm_up(prepared, spec, FusePlan(8, trials=100), Refusals(prepared, spec))
    assert not model.compiler.enabled


def test_random_numbers_go_on_as_if_nothing_had_been_measured() -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    plan_of(Line(), 40, asked="6")
    assert torch.equal(torch.rand(3), expected)


class NotFinite(Line):
    """Diverges at its first step."""

    def loss(self, model: nn.Module, batch: Batch) -> Any:
        return mse_loss(model(batch[0]), batch[1]) * float("nan")


@pytest.mark.parametrize("asked", ["auto", "6"])
def test_what_cannot_be_timed_is_told_without_a_ratio(asked: str) -> None:
    # Evaluated after every step, it ends before there is anything to time.
    budget = {"steps": 200, "trials": 100_000, "evaluations": 200}
    plan = plan_of(NotFinite(), asked=asked, budget=budget)
    assert "no steps could be timed" in plan.reason
    assert "times as many" not in plan.reason
    assert plan.lanes == (1 if asked == "auto" else 6)
    assert (plan.single_s, plan.lane_s) == (0.0, 0.0)
