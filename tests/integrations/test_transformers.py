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
from tuner.errors import SpecError, WorkloadError
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
        return weights_of(self.trainer)


def weights_of(trainer: Trainer) -> Tensor:
    assert trainer.model is not None
    return torch.cat([p.detach().reshape(-1) for p in trainer.model.parameters()])


def stop_and_go(loop: Loop, step: int, config: Any = CONFIG) -> tuple[Trial, Trial]:
    stopped = train(loop, SPEC, config, Recorder(interrupt_at=step))
    assert stopped.outcome.ending == "interrupted"
    state = through_disk(stopped.run.state.state_dict())
    torch.rand(17)
    return stopped, train(loop, SPEC, config, Recorder(), state)


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
    schedule: Any = build_schedule(
        config.schedule, config.schedule_values, by_hand.optimizer, STEPS
    )
    by_hand.lr_scheduler = schedule
    by_hand.train()
    told = [line["eval_loss"] for line in by_hand.state.log_history if "eval_loss" in line]
    assert values_of(trial) == told
    assert trial.steps_evaluated == [4, 8, 12]
    assert torch.equal(loop.weights, weights_of(by_hand))


@pytest.mark.parametrize(("step", "accumulate"), [(1, 1), (4, 1), (5, 1), (11, 1), (3, 2), (8, 2)])
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
    stopped, continued = stop_and_go(loop, 6, config)
    assert stopped.evaluations + continued.evaluations == whole.evaluations
    assert torch.equal(loop.weights, weights)


def test_it_is_saved_while_it_trains() -> None:
    """The Trainer saves when the worker's next checkpoint is due; here that is at every step."""
    spec = SPEC.model_copy(update={"train": SPEC.train.model_copy(update={"checkpoint_s": 1e-9})})
    states = []

    def keep(run: Run, step: int) -> None:
        if step in (3, 4, 9) and run.state.resumable:
            states.append(through_disk(run.state.state_dict()))

    loop = Loop()
    whole = train(loop, spec, CONFIG, Recorder(on_step=keep))
    weights = loop.weights
    assert [state["steps"]["done"] for state in states] == [3, 4, 9]
    for state in states:
        continued = train(loop, spec, CONFIG, Recorder(), state)
        assert continued.evaluations == whole.evaluations[state["evaluated"] :]
        assert torch.equal(loop.weights, weights)


def test_it_stops_where_it_is_pruned() -> None:
    loop = Loop()
    trial = train(loop, SPEC, CONFIG, Recorder(prune_at=8))
    assert trial.outcome.ending == "pruned"
    assert loop.trainer.state.global_step == trial.run.taken == 8


def test_what_it_computes_and_logs_is_kept(folder: Path) -> None:
    def compute_metrics(prediction: Any) -> dict[str, float]:
        return {
            "accuracy": float((prediction.predictions.argmax(1) == prediction.label_ids).mean())
        }

    loop = Loop(compute_metrics=compute_metrics, arguments={"logging_steps": 5})
    trial = train(loop, SPEC, CONFIG)
    assert [set(e.metrics) for e in trial.evaluations] == [{"eval_loss", "eval_accuracy"}] * EPOCHS
    logged = trial.run.state.take_logged()
    assert {(step, name) for step, name, _ in logged} == {
        (step, name) for step in (5, 10) for name in ("train_loss", "grad_norm")
    }
    assert [path.name for path in folder.rglob("*")] == ["out"]
    metrics = loop.trainer.evaluate()
    assert metrics["eval_loss"] == trial.evaluations[-1].metrics["eval_loss"]


def test_several_evaluation_sets_are_reported_together() -> None:
    spec = make_spec(
        budget={"steps": 10, "evaluations": 2},
        study={"name": "s", "workload": "train:train", "metric": "eval_far_loss"},
    )
    sets = {"near": Parity(32, 1), "far": Parity(32, 2)}
    trial = train(Loop(eval_dataset=sets), spec, CONFIG)
    assert trial.steps_evaluated == [5, 10]
    assert [set(e.metrics) for e in trial.evaluations] == [{"eval_near_loss", "eval_far_loss"}] * 2


def test_averaged_weights_are_evaluated_and_those_that_train_go_on() -> None:
    config, loop, by_itself = averaged(CONFIG, "ema"), Loop(), Loop()
    whole, weights = train(loop, SPEC, config), loop.weights
    assert values_of(train(by_itself, SPEC, CONFIG))[-1] != values_of(whole)[-1]
    assert torch.equal(by_itself.weights, weights)
    stopped, continued = stop_and_go(loop, 9, config)
    assert stopped.evaluations + continued.evaluations == whole.evaluations


def test_a_callback_that_stops_the_trainer_ends_the_trial_early() -> None:
    class Enough(TrainerCallback):
        def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = state.global_step >= 8

    trial = train(Loop(callbacks=[Enough()]), SPEC, CONFIG)
    assert trial.outcome.ending == "complete"
    assert trial.run.taken == 8
    assert trial.run.state.describe_loop()["stopped_early"] == "a callback has stopped the Trainer"


def test_a_trainer_that_builds_its_model_again_is_refused() -> None:
    def loop(run: Run) -> None:
        trainer: Any = make_trainer()
        trainer.model_init = lambda: trainer.model
        attach(trainer, run)

    with pytest.raises(WorkloadError, match="model_init"):
        train(loop, SPEC, CONFIG)


def test_data_without_a_length_need_a_budget_that_tells_it() -> None:
    class Stream(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter([Parity(64, 0)[row] for row in range(64)])

    class Streaming(Loop):
        def __call__(self, run: Run) -> None:
            self.trainer = make_trainer(arguments={"max_steps": 1})
            self.trainer.train_dataset = Stream()
            self.trainer.train(resume_from_checkpoint=attach(self.trainer, run))

    with pytest.raises(SpecError, match="no length"):
        train(Streaming(), SPEC, CONFIG)
    spec = make_spec(budget={"steps": 7, "evaluations": 1}, study=SPEC.study.model_dump())
    assert train(Streaming(), spec, CONFIG).run.taken == 7
