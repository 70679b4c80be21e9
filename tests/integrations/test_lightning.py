"""A Lightning trainer in a trial trains as it does by hand, and goes on as if never stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812 (as its documentation has it)
import pytest
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, LearningRateMonitor
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, Dataset

from tests.training.trials import (
    Recorder,
    Trial,
    averaged,
    make_config,
    make_spec,
    through_disk,
    train,
)
from tuner.domain.trials import TrialConfig
from tuner.errors import WorkloadError
from tuner.integrations.lightning import attach, optimizers
from tuner.optim import build_optimizer, build_schedule
from tuner.training.run import Run
from tuner.training.seeds import derive_seed, seed_all

EPOCH, EPOCHS = 6, 3
STEPS = EPOCH * EPOCHS

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:.*LeafSpec",
    "ignore:The number of training batches",
)


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Points that are moved at random each time they are drawn."""

    def __init__(self, rows: int, noise: float = 0.05) -> None:
        self.x = torch.randn(rows, 4, generator=torch.Generator().manual_seed(0))
        self.noise = noise

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        x = self.x[row]
        return x + self.noise * torch.randn(4), x.square().sum(0, keepdim=True)


class Regression(L.LightningModule):
    """A network with dropout, over shuffled points with noise."""

    def __init__(self, by_hand: TrialConfig | None = None) -> None:
        super().__init__()
        self.by_hand = by_hand
        self.body = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.2))
        self.head = nn.Linear(8, 1)
        self.values: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = mse_loss(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", mse_loss(self(batch[0]), batch[1]))

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.values.append(self.trainer.callback_metrics["val_loss"].item())

    def forward(self, x: Tensor) -> Any:
        return self.head(self.body(x))

    def configure_optimizers(self) -> Any:
        if (config := self.by_hand) is None:
            return optimizers(self)
        optimizer = build_optimizer(config.optimizer, config.optimizer_values, self)
        schedule = build_schedule(config.schedule, config.schedule_values, optimizer, STEPS)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def loaders(**options: Any) -> tuple[DataLoader[Any], DataLoader[Any]]:
    batch = 60 // EPOCH // options.pop("parts", 1)
    training = DataLoader(Noisy(60), batch_size=batch, shuffle=True, **options)
    return training, DataLoader(Noisy(20, noise=0.0), batch_size=20)


def make_trainer(**options: Any) -> L.Trainer:
    return L.Trainer(accelerator="cpu", max_epochs=EPOCHS, log_every_n_steps=1, **options)


SPEC = make_spec(budget={"epochs": EPOCHS, "evaluations": EPOCHS})


class Loop:
    """A training loop that keeps the module it has trained."""

    def __init__(self, module: Any = Regression, **options: Any) -> None:
        self.make, self.options = module, options
        self.parts = options.get("accumulate_grad_batches", 1)
        self.data = options.pop("data", {})
        self.module = Regression()

    def __call__(self, run: Run) -> None:
        self.module = self.make()
        trainer = make_trainer(**self.options)
        training, validation = loaders(parts=self.parts, **self.data)
        trainer.fit(self.module, training, validation, ckpt_path=attach(trainer, run))

    @property
    def weights(self) -> Tensor:
        return torch.cat([p.detach().reshape(-1) for p in self.module.parameters()])


def stop_and_go(loop: Loop, step: int, spec: Any, config: Any) -> tuple[Trial, Trial]:
    stopped = train(loop, spec, config, Recorder(interrupt_at=step))
    assert stopped.outcome.ending == "interrupted"
    state = through_disk(stopped.run.state.state_dict())
    torch.rand(17)
    return stopped, train(loop, spec, config, Recorder(), state)


CONFIG = make_config("adam", lr=0.02)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("optimizer", ["adam", "muon", "momentum"])
@pytest.mark.parametrize("parts", [1, 2])
def test_it_trains_as_it_does_by_hand(optimizer: str, parts: int) -> None:
    config = make_config(optimizer, lr=0.02)
    loop = Loop(accumulate_grad_batches=parts)
    trial = train(loop, SPEC, config)

    seed_all(derive_seed(SPEC.search.seed, "init"))
    by_hand = Regression(config)
    trainer = make_trainer(accumulate_grad_batches=parts, logger=False, enable_checkpointing=False)
    trainer.fit(by_hand, *loaders(parts=parts))
    assert trial.values == by_hand.values
    assert trial.steps_evaluated == [6, 12, 18]
    assert all(
        torch.equal(a, b)
        for a, b in zip(loop.module.parameters(), by_hand.parameters(), strict=True)
    )


@pytest.mark.parametrize("step", [1, 5, 6, 7, 12, 17])
@pytest.mark.parametrize("kind", ["plain", "accumulating", "own generator"])
def test_it_goes_on_as_if_never_stopped(step: int, kind: str) -> None:
    class Seeded(Loop):
        def __call__(self, run: Run) -> None:
            if kind == "own generator":
                self.data = {"generator": torch.Generator().manual_seed(3)}
            super().__call__(run)

    loop = Seeded(accumulate_grad_batches=2 if kind == "accumulating" else 1)
    whole, weights = train(loop, SPEC, CONFIG), loop.weights
    stopped, continued = stop_and_go(loop, step, SPEC, CONFIG)
    assert stopped.run.taken == step
    assert stopped.evaluations + continued.evaluations == whole.evaluations
    assert torch.equal(loop.weights, weights)


@pytest.mark.parametrize("optimizer", ["muon", "schedulefree_adamw"])
def test_any_optimizer_goes_on_as_if_never_stopped(optimizer: str) -> None:
    loop, config = Loop(), make_config(optimizer, lr=0.02)
    whole, weights = train(loop, SPEC, config), loop.weights
    stopped, continued = stop_and_go(loop, 8, SPEC, config)
    assert stopped.evaluations + continued.evaluations == whole.evaluations
    assert torch.equal(loop.weights, weights)


@pytest.mark.parametrize("budget", [{"steps": 13}, {"epochs": 2}, {"examples": 130}])
def test_it_trains_exactly_the_budget_and_validates_where_that_asks(budget: Any) -> None:
    loop, spec = Loop(), make_spec(budget=budget | {"evaluations": 4}, train={"batch_size": 10})
    config = make_config("adam", lr=0.02, batch_size=10)
    trial = train(loop, spec, config)
    total = {"steps": 13, "epochs": 12}.get(next(iter(budget)), 13)
    assert trial.outcome.ending == "complete"
    assert trial.run.taken == loop.module.trainer.global_step == total
    assert trial.steps_evaluated == [-(-total * part // 4) for part in (1, 2, 3, 4)]
    assert loop.module.values == trial.values
    stopped, continued = stop_and_go(Loop(), 3, spec, config)
    assert stopped.evaluations + continued.evaluations == trial.evaluations


def test_it_stops_where_it_is_pruned() -> None:
    loop = Loop()
    trial = train(loop, SPEC, CONFIG, Recorder(prune_at=12))
    assert trial.outcome.ending == "pruned"
    assert loop.module.trainer.global_step == trial.run.taken == 12


def test_it_is_saved_while_it_trains() -> None:
    states = []

    def keep(run: Run, step: int) -> None:
        if step in (5, 6, 9) and run.state.resumable:
            states.append(through_disk(run.state.state_dict()))

    loop = Loop()
    whole = train(loop, SPEC, CONFIG, Recorder(on_step=keep))
    weights = loop.weights
    assert [state["steps"]["done"] for state in states] == [5, 6, 9]
    for state in states:
        continued = train(loop, SPEC, CONFIG, Recorder(), state)
        assert continued.evaluations == whole.evaluations[state["evaluated"] :]
        assert torch.equal(loop.weights, weights)


def test_the_metrics_of_a_validation_are_reported_and_those_of_training_logged() -> None:
    trial = train(Loop(), SPEC, CONFIG)
    assert [set(e.metrics) for e in trial.evaluations] == [{"val_loss"}] * EPOCHS
    logged = trial.run.state.take_logged()
    assert [(step, name) for step, name, _ in logged] == [(n, "train_loss") for n in (6, 12, 18)]


def test_nothing_is_written_and_nothing_is_shown(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = Loop(callbacks=[LearningRateMonitor()])
    assert train(loop, SPEC, CONFIG).outcome.ending == "complete"
    assert list(folder.iterdir()) == []
    assert "Epoch" not in capsys.readouterr().out


def test_a_checkpoint_folder_of_the_users_own_stays(folder: Path) -> None:
    kept = L.pytorch.callbacks.ModelCheckpoint(dirpath=folder / "mine", filename="last")
    train(Loop(callbacks=[kept]), SPEC, CONFIG)
    assert [path.name for path in (folder / "mine").iterdir()] == ["last.ckpt"]


def test_state_of_other_callbacks_goes_on_too() -> None:
    class Counting(Callback):
        def __init__(self) -> None:
            self.batches = 0

        def on_train_batch_end(self, *_: Any) -> None:
            self.batches += 1

        def state_dict(self) -> dict[str, Any]:
            return {"batches": self.batches}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.batches = state["batches"]

    class Counted(Loop):
        def __call__(self, run: Run) -> None:
            self.counting = Counting()
            self.options = {"callbacks": [self.counting]}
            super().__call__(run)

    loop = Counted()
    stop_and_go(loop, 8, SPEC, CONFIG)
    assert loop.counting.batches == STEPS


def test_a_callback_that_stops_the_trainer_ends_the_trial_early() -> None:
    stopping = EarlyStopping("val_loss", patience=1, min_delta=1e9)
    trial = train(Loop(callbacks=[stopping]), SPEC, CONFIG)
    assert trial.outcome.ending == "complete"
    assert trial.run.taken == 12
    assert trial.run.state.describe_loop()["stopped_early"] == "a callback has stopped the trainer"


@pytest.mark.parametrize("average", ["ema", "swa"])
def test_averaged_weights_are_validated_and_those_that_train_go_on(average: str) -> None:
    config, loop = averaged(CONFIG, average), Loop()
    whole, weights = train(loop, SPEC, config), loop.weights
    by_itself = Loop()
    assert train(by_itself, SPEC, CONFIG).values[-1] != whole.values[-1]
    assert torch.equal(by_itself.weights, weights)
    stopped, continued = stop_and_go(loop, 15, SPEC, config)
    assert stopped.evaluations + continued.evaluations == whole.evaluations
    assert torch.equal(loop.weights, weights)


class Adversarial(L.LightningModule):
    """Two networks, which the module steps itself; the second one twice a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.maker = nn.Linear(4, 4)
        self.judge = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def training_step(self, batch: Any, batch_idx: int) -> None:
        maker, judge = self.optimizers()  # type: ignore[attr-defined]
        made = self.maker(torch.randn(len(batch[0]), 4))
        for _ in range(2):
            judge.zero_grad()
            loss = (self.judge(made.detach()).square() + (self.judge(batch[0]) - 1).square()).mean()
            self.manual_backward(loss)
            judge.step()
        maker.zero_grad()
        self.manual_backward((self.judge(made) - 1).square().mean())
        maker.step()
        for schedule in self.lr_schedulers():  # type: ignore[union-attr]
            schedule.step()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", (self.maker(batch[0]).std(0) - batch[0].std(0)).square().mean())

    def configure_optimizers(self) -> Any:
        return optimizers(self, maker=self.maker, judge=self.judge)


def test_a_module_may_step_optimizers_of_several_networks_itself() -> None:
    loop = Loop(Adversarial)
    whole, weights = train(loop, SPEC, CONFIG), loop.weights
    assert whole.run.taken == STEPS
    assert whole.steps_evaluated == [6, 12, 18]
    assert whole.run.state.describe_loop()["networks"] == ["maker", "judge"]
    rates = [group["lr"] for o in loop.module.trainer.optimizers for group in o.param_groups]
    assert max(rates) < 0.002
    stopped, continued = stop_and_go(loop, 8, SPEC, CONFIG)
    assert stopped.evaluations + continued.evaluations == whole.evaluations
    assert torch.equal(loop.weights, weights)


def test_an_optimizer_that_repeats_its_closure_takes_as_many_steps_of_the_budget() -> None:
    loop = Loop()
    trial = train(loop, SPEC, make_config("lbfgs", lr=0.1, max_iter=4))
    assert trial.outcome.ending == "complete"
    assert trial.run.taken == STEPS
    assert loop.module.trainer.global_step < STEPS


class Stream(torch.utils.data.IterableDataset[Any]):
    """Points that come without a length."""

    def __iter__(self) -> Any:
        return iter([Noisy(60)[row] for row in torch.randperm(60).tolist()])


def test_a_stream_without_a_length_trains_and_goes_on() -> None:
    class Streaming(Loop):
        def __call__(self, run: Run) -> None:
            self.module = Regression()
            trainer = make_trainer()
            _, validation = loaders()
            stream = DataLoader(Stream(), batch_size=10)
            trainer.fit(self.module, stream, validation, ckpt_path=attach(trainer, run))

    loop, spec = Streaming(), make_spec(STEPS, 4)
    whole, weights = train(loop, spec, CONFIG), loop.weights
    assert whole.run.taken == STEPS
    stopped, continued = stop_and_go(loop, 8, spec, CONFIG)
    assert stopped.evaluations + continued.evaluations == whole.evaluations
    assert torch.equal(loop.weights, weights)


def test_loader_processes_draw_what_they_would_have_drawn() -> None:
    loop = Loop(data={"num_workers": 1})
    whole = train(loop, SPEC, CONFIG)
    stopped, continued = stop_and_go(loop, 8, SPEC, CONFIG)
    assert stopped.evaluations + continued.evaluations == whole.evaluations


def test_the_package_of_the_older_name_works_as_well() -> None:
    import pytorch_lightning

    class Older(pytorch_lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(4, 1)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return mse_loss(self.net(batch[0]), batch[1])

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val_loss", mse_loss(self.net(batch[0]), batch[1]))

        def configure_optimizers(self) -> Any:
            return optimizers(self)

    def loop(run: Run) -> None:
        trainer = pytorch_lightning.Trainer(accelerator="cpu", max_epochs=1)
        trainer.fit(Older(), *loaders(), ckpt_path=attach(trainer, run))

    assert train(loop, SPEC, CONFIG).steps_evaluated == [6, 12, 18]


def test_a_trainer_without_a_run_is_told_to_attach_one() -> None:
    trainer = make_trainer(logger=False, enable_checkpointing=False)
    with pytest.raises(WorkloadError, match=r"attach\(trainer, run\)"):
        trainer.fit(Regression(), *loaders())


def test_a_checkpoint_of_another_loop_is_not_gone_on_from() -> None:
    from tests.training.loops import by_step
    from tuner.training.reporting import StaleCheckpointError

    spec = make_spec(STEPS, EPOCHS)
    stopped = train(by_step, spec, CONFIG, Recorder(interrupt_at=8))
    with pytest.raises(StaleCheckpointError, match="no trainer owned"):
        train(Loop(), spec, CONFIG, state=stopped.run.state.state_dict())
    ours = train(Loop(), spec, CONFIG, Recorder(interrupt_at=8))
    with pytest.raises(StaleCheckpointError, match="that a trainer owned"):
        train(by_step, spec, CONFIG, state=through_disk(ours.run.state.state_dict()))
