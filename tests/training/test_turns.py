"""A trainer that owns the loop takes the turns itself, and keeps what it has trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from accelerate import Accelerator

from tests.training.loops import Net, differentiate, evaluate, points
from tests.training.trials import (
    Recorder,
    is_same,
    make_config,
    make_spec,
    through_disk,
    train,
)
from tuner.training.reporting import StaleCheckpointError
from tuner.training.run import Run

STEPS = 12
SPEC = make_spec(STEPS, 4)


class Trainer:
    """Owns a loop; it can save between two of its steps alone, and never once it has ended."""

    def __init__(self, run: Run) -> None:
        self.run, self.model = run, Net()
        self.turns = run.state.follow(self)
        kept = self.turns.kept
        if kept is not None:
            self.model.load_state_dict(kept["model"])
        self.optimizer = run.optimizer(self.model)
        self.schedule = run.schedule(self.optimizer)
        self.step = 0
        if kept is not None:
            self.optimizer.load_state_dict(kept["optimizer"])
            self.schedule.load_state_dict(kept["schedule"])
            self.step = kept["step"]
            torch.set_rng_state(kept["random"])
        self.saves = 0
        self.ready = True

    def save(self) -> dict[str, Any]:
        assert self.ready, "it has been torn down"
        self.saves += 1
        return {
            "model": {name: value.clone() for name, value in self.model.state_dict().items()},
            "optimizer": through_disk(self.optimizer.state_dict()),
            "schedule": self.schedule.state_dict(),
            "step": self.step,
            "random": torch.get_rng_state(),
        }

    def fit(self) -> None:
        try:
            self.turns.begin()
            while self.turns.enter() is not None:
                differentiate(self.optimizer, self.model, points())
                # As Lightning does: a closure for every optimizer.
                self.optimizer.step(lambda: 0.0)
                self.schedule.step()
                self.step += 1
                if self.run.due():
                    self.run.report(val_loss=evaluate(self.model))
                self.turns.leave()
        finally:
            self.ready = False


class Loop:
    trainer: Trainer

    def __call__(self, run: Run) -> None:
        self.trainer = Trainer(run)
        self.trainer.fit()


CONFIG = make_config("muon", lr=0.02)


@pytest.mark.parametrize("step", [1, 5, 6, 11])
def test_it_goes_on_from_what_it_has_kept(step: int) -> None:
    loop = Loop()
    whole = train(loop, SPEC, CONFIG)
    model = loop.trainer.model.state_dict()
    stopped = train(loop, SPEC, CONFIG, Recorder(interrupt_at=step))
    assert (stopped.outcome.ending, loop.trainer.saves) == ("interrupted", 1)
    state = through_disk(stopped.run.state.state_dict())
    assert state["models"] == state["optimizers"] == state["schedules"] == []
    torch.rand(17)
    continued = train(loop, SPEC, CONFIG, state=state)
    assert stopped.evaluations + continued.evaluations == whole.evaluations
    assert is_same(loop.trainer.model.state_dict(), model)


def test_a_trainer_that_is_not_ready_is_not_asked() -> None:
    saved: list[bool] = []

    def look(run: Run, step: int) -> None:
        loop.trainer.ready = step != 5
        saved.append(run.state.resumable)

    loop = Loop()
    train(loop, SPEC, CONFIG, Recorder(on_step=look))
    assert [step for step, able in enumerate(saved, 1) if not able] == [5]


def test_what_is_kept_must_be_a_mapping() -> None:
    stopped = train(Loop(), SPEC, CONFIG, Recorder(interrupt_at=5))
    state = through_disk(stopped.run.state.state_dict()) | {"kept": [1]}
    with pytest.raises(StaleCheckpointError, match="kept are malformed"):
        train(Loop(), SPEC, CONFIG, state=state)


def test_a_step_with_a_closure_is_one_step_where_it_is_called_once() -> None:
    def loop(run: Run) -> None:
        model = Net()
        optimizer = run.optimizer(model)
        for _ in run.steps():
            for _ in range(3):
                differentiate(optimizer, model, points())
                optimizer.step(lambda: 0.0)
            run.report(val_loss=evaluate(model))

    trial = train(loop, SPEC, CONFIG)
    assert trial.run.turns == trial.run.taken == STEPS


def test_a_schedule_follows_an_optimizer_that_accelerate_has_prepared() -> None:
    """It follows the steps that are taken, where gradients are accumulated over two batches."""
    rates: list[float] = []

    def loop(run: Run) -> None:
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
        model = Net()
        inner = run.optimizer(model)
        prepared, optimizer = accelerator.prepare(model, inner)
        schedule = run.schedule(optimizer)
        for _ in range(2 * STEPS):
            with accelerator.accumulate(prepared):
                accelerator.backward(prepared(points()[0]).square().mean())
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            rates.append(inner.param_groups[0]["lr"])
            run.report(val_loss=evaluate(model))

    config = make_config("adam", schedule="linear", warmup=0.0, lr=0.12)
    trial = train(loop, SPEC, config)
    assert trial.run.trained == STEPS
    assert trial.steps_evaluated == [3, 6, 9, 12]
    falling = [0.12 * (1 - n / STEPS) for n in range(1, STEPS + 1)]
    assert rates[1::2] == pytest.approx(falling, abs=2e-4)  # down to a thousandth
