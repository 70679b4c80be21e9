"""Trainers on several processes, in float64 where they can, for tests of them."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from tests.service.worker.ddp import note
from tuner import Run

EXAMPLES = 64


def make_data() -> TensorDataset:
    """Returns inputs and targets."""
    inputs = torch.randn(EXAMPLES, 3, generator=torch.Generator().manual_seed(3)).double()
    return TensorDataset(inputs, inputs.sin().sum(1, keepdim=True))


def make_network(dropout: float) -> nn.Module:
    """Returns a small network, the same for each seed."""
    layers = nn.Linear(3, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1)
    return nn.Sequential(*layers).double()


def accelerated(run: Run) -> None:
    """Trains with Accelerate, on a shuffled loader."""
    from accelerate import Accelerator
    from accelerate.utils import DataLoaderConfiguration

    # Orders follow from seed and epoch, so that a resumed trial repeats them.
    accelerator = Accelerator(dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True))
    data = make_data()
    network = make_network(0.0)
    model, optimizer, loader = accelerator.prepare(
        network, run.optimizer(network), DataLoader(data, run.batch_size, shuffle=True)
    )
    schedule = run.schedule(optimizer, loader)
    note(run, "begins")
    for step, (x, y) in run.steps(loader):
        optimizer.zero_grad()
        accelerator.backward(mse_loss(model(x), y))
        optimizer.step()
        schedule.step()
        if run.due():
            with torch.no_grad():
                run.report(val_loss=mse_loss(network(data.tensors[0]), data.tensors[1]))
            note(run, f"reported {step}")


def lightning(run: Run, dropout: float = 0.0, **arguments: Any) -> None:
    """Trains with Lightning, in the order of the data."""
    import lightning as L  # noqa: N812 (as its documentation has it)

    from tuner.integrations.lightning import attach, optimizers

    class Regression(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = make_network(dropout)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return mse_loss(self.net(batch[0]), batch[1])

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val_loss", mse_loss(self.net(batch[0]), batch[1]))

        def on_validation_end(self) -> None:
            if not self.trainer.sanity_checking:
                note(run, f"reported {self.trainer.global_step - 1}")

        def configure_optimizers(self) -> Any:
            return optimizers(self)

    # Alone, DDP would form a group over a port.
    strategy = "ddp" if run.world_size > 1 else "auto"
    together: dict[str, Any] = {"devices": run.world_size, "strategy": strategy} | arguments
    data = make_data()
    sampler: DistributedSampler[Any] | None = None
    if run.world_size > 1:  # Lightning's own would shuffle
        sampler = DistributedSampler(data, run.world_size, run.rank, shuffle=False)
    trainer = L.Trainer(accelerator="cpu", **together)
    note(run, "begins")
    trainer.fit(
        Regression(),
        DataLoader(data, run.batch_size, sampler=sampler),
        DataLoader(data, EXAMPLES // run.world_size),
        ckpt_path=attach(trainer, run),
    )


def lightning_with_dropout(run: Run) -> None:
    """Trains with Lightning and masks that each rank draws."""
    lightning(run, 0.3)


def lightning_apart(run: Run) -> None:
    """Has each rank train with a Trainer that does not know of the other."""
    lightning(run, devices=1, strategy="auto")


def transformers(run: Run, dropout: float = 0.0, *, use_cpu: bool = True) -> None:
    """Trains with a Transformers Trainer, on shuffled data."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from tuner.integrations.transformers import attach

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = make_network(dropout)

        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            out = self.net(x)
            return {"loss": mse_loss(out, labels), "logits": out}

    class Noting(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            note(run, f"reported {state.global_step - 1}")

    args = TrainingArguments(
        "out",
        per_device_train_batch_size=run.batch_size,
        per_device_eval_batch_size=EXAMPLES // run.world_size,
        use_cpu=use_cpu,
        report_to="none",
    )
    rows = [{"x": x, "labels": y} for x, y in zip(*make_data().tensors, strict=True)]
    trainer = Trainer(Model(), args, train_dataset=rows, eval_dataset=rows, callbacks=[Noting()])
    note(run, "begins")
    trainer.train(resume_from_checkpoint=attach(trainer, run))


def transformers_with_dropout(run: Run) -> None:
    """Trains with a Transformers Trainer and masks that each rank draws."""
    transformers(run, 0.3)


def transformers_apart(run: Run) -> None:
    """Has each rank train with a Trainer that does not look for others on a CPU."""
    del os.environ["ACCELERATE_USE_CPU"]
    transformers(run, use_cpu=False)
