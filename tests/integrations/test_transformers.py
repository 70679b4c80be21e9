"""A Trainer in a trial trains as it does by hand, and goes on as if never stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from tests.training.trials import (
    Recorder,
    Trial,
    averaged,
    make_config,
    make_spec,
    through_disk,
    train,
)
from tuner.integrations.transformers import attach
from tuner.optim import build_optimizer, build_schedule
from tuner.training.run import Run

EPOCH, EPOCHS = 4, 3
STEPS = EPOCH * EPOCHS

SPEC = make_spec(
    budget={"epochs": EPOCHS, "evaluations": EPOCHS},
    study={"name": "s", "workload": "train:train", "metric": "eval_loss"},
)
CONFIG = make_config("adam", lr=0.01)


class Parity(Dataset[dict[str, Tensor]]):
    """Sequences of tokens, to be told by whether their sum is odd."""

    def __init__(self, rows: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.tokens = torch.randint(2, 30, (rows, 8), generator=generator)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        tokens = self.tokens[row]
        return {"input_ids": tokens, "labels": tokens.sum() % 2}


def make_trainer(**options: Any) -> Trainer:
    set_seed(0)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=30,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=16,
        )
    )
    accumulate = options.pop("accumulate", 1)
    args = TrainingArguments(
        "out",
        per_device_train_batch_size=16 // accumulate,
        gradient_accumulation_steps=accumulate,
        per_device_eval_batch_size=32,
        num_train_epochs=EPOCHS,
        eval_strategy="epoch",
        save_strategy="no",
        use_cpu=True,
        seed=0,
        disable_tqdm=True,
        report_to="none",
        **options.pop("arguments", {}),
    )
    options = {"eval_dataset": Parity(32, 1)} | options
    return Trainer(model, args, train_dataset=Parity(64, 0), **options)


class Loop:
    """A training loop that keeps its Trainer."""

    trainer: Trainer

    def __init__(self, **options: Any) -> None:
        self.options = options

    def __call__(self, run: Run) -> None:
        self.trainer = make_trainer(**self.options)
        self.trainer.train(resume_from_checkpoint=attach(self.trainer, run))

    @property
    def weights(self) -> Tensor:
        model = self.trainer.model
        assert model is not None
        return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def stop_and_go(loop: Loop, step: int, spec: Any = SPEC, config: Any = CONFIG) -> tuple[Trial, Trial]:
    stopped = train(loop, spec, config, Recorder(interrupt_at=step))
    assert stopped.outcome.ending == "interrupted"
    state = through_disk(stopped.run.state_dict())
    torch.rand(17)
    return stopped, train(loop, spec, config, Recorder(), state)


def values_of(trial: Trial) -> list[float]:
    return [evaluation.metrics["eval_loss"] for evaluation in trial.evaluations]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_it_trains_as_it_does_by_hand(optimizer: str, accumulate: int) -> None:
    config, loop = make_config(optimizer, lr=0.01), Loop(accumulate=accumulate)
    trial = train(loop, SPEC, config)

    by_hand = make_trainer(accumulate=accumulate)
    assert by_hand.model is not None
    by_hand.optimizer = build_optimizer(config.optimizer, config.optimizer_values, by_hand.model)
    by_hand.lr_scheduler = build_schedule(
        config.schedule, config.schedule_values, by_hand.optimizer, STEPS
    )
    by_hand.train()
    told = [line["eval_loss"] for line in by_hand.state.log_history if "eval_loss" in line]
    assert values_of(trial) == told
    assert trial.steps_evaluated == [4, 8, 12]
    for one, other in zip(loop.trainer.model.parameters(), by_hand.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("step", [1, 3, 4, 5, 8, 11])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_it_goes_on_as_if_never_stopped(step: int, accumulate: int) -> None:
    loop = Loop(accumulate=accumulate)
    whole, weights = train(loop, SPEC, CONFIG), loop.weights
    stopped, continued = stop_and_go(loop, step)
    assert stopped.run.taken == step
    assert stopped.evaluations + continued.evaluations == whole.evaluations
    assert torch.equal(loop.weights, weights)


def test_any_optimizer_goes_on_as_if_never_stopped() -> None:
    loop, config = Loop(), make_config("muon", lr=0.01)
    whole, weights = train(loop, SPEC, config), loop.weights
    stopped, continued = stop_and_go(loop, 6, config=config)
    assert stopped.evaluations + continued.evaluations == whole.evaluations
    assert torch.equal(loop.weights, weights)
