"""Training loops as people write them: all of them must survive an interruption."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, Dataset, TensorDataset

from tuner.training.run import Run

EXAMPLES, BATCH = 64, 10
EPOCH = 7
"""Batches of an epoch; the last one is smaller."""

STEPS = 4 * EPOCH


def points() -> tuple[Tensor, Tensor]:
    x = torch.randn(EXAMPLES, 4, generator=torch.Generator().manual_seed(0))
    return x, x.square().sum(1, keepdim=True)


class Net(nn.Module):
    """A body and a head, with dropout between them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 8)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.dropout(torch.tanh(self.body(x))))
        return out


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Points that draw from every source of randomness."""

    def __len__(self) -> int:
        return EXAMPLES

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = points()
        noise = random.random() + np.random.rand() + torch.rand(())  # noqa: S311
        return x[index] + 0.01 * noise, y[index]


def batches_of(data: Any = None, **options: Any) -> DataLoader[Any]:
    return DataLoader(data or TensorDataset(*points()), batch_size=BATCH, shuffle=True, **options)


@torch.no_grad()
def evaluate(model: nn.Module) -> float:
    model.eval()
    loss = mse_loss(model(points()[0]), points()[1]).item()
    model.train()
    return loss


def differentiate(optimizer: torch.optim.Optimizer, model: nn.Module, batch: Any) -> Any:
    optimizer.zero_grad()
    loss = mse_loss(model(batch[0]), batch[1])
    loss.backward()
    return loss


def by_step(run: Run) -> float:
    model = Net()
    optimizer = run.optimizer(model)
    schedule = run.schedule(optimizer)
    for step in run.steps():
        differentiate(optimizer, model, points())
        optimizer.step()
        schedule.step()
        if run.due(step):
            run.report(step, val_loss=evaluate(model))
    return evaluate(model)


def over_loader(run: Run, loader: DataLoader[Any] | None = None) -> None:
    model, loader = Net(), batches_of() if loader is None else loader
    optimizer = run.optimizer(model)
    schedule = run.schedule(optimizer, loader)
    for step, batch in run.steps(loader):
        differentiate(optimizer, model, batch)
        optimizer.step()
        schedule.step()
        run.report(step, val_loss=evaluate(model))


def over_noisy_loader(run: Run) -> None:
    over_loader(run, batches_of(Noisy()))


def over_own_batches(run: Run) -> None:
    """Any object with a length and an iterator will do."""

    class Batches:
        def __len__(self) -> int:
            return EPOCH

        def __iter__(self) -> Iterator[Any]:
            order = torch.randperm(EXAMPLES)
            return (tuple(t[part] for t in points()) for part in order.split(BATCH))

    over_loader(run, Batches())  # type: ignore[arg-type]


def over_shuffled_batches(run: Run) -> None:
    """An order may come from any source of randomness."""

    class Batches:
        def __len__(self) -> int:
            return EPOCH

        def __iter__(self) -> Iterator[Any]:
            order = list(range(EXAMPLES))
            random.shuffle(order)
            np.random.shuffle(order)
            parts = torch.tensor(order).split(BATCH)
            return (tuple(t[part] for t in points()) for part in parts)

    over_loader(run, Batches())  # type: ignore[arg-type]


def scheduled_by_epoch(run: Run) -> None:
    """Steps its schedule at the end of each epoch alone."""
    model, loader = Net(), batches_of()
    optimizer = run.optimizer(model)
    schedule = run.schedule(optimizer, loader)
    for step, batch in run.steps(loader):
        differentiate(optimizer, model, batch)
        optimizer.step()
        if (step + 1) % EPOCH == 0:
            schedule.step()
        run.report(step, val_loss=evaluate(model))


def unscheduled(run: Run) -> None:
    model, loader = Net(), batches_of()
    optimizer = run.optimizer(model)
    for step, batch in run.steps(loader):
        differentiate(optimizer, model, batch)
        optimizer.step()
        run.report(step, val_loss=evaluate(model))


def accumulating(run: Run) -> None:
    model, loader = Net(), batches_of()
    optimizer = run.optimizer(model)
    schedule = run.schedule(optimizer, loader)
    for step, (x, y) in run.steps(loader):
        optimizer.zero_grad()
        for part_x, part_y in zip(x.split(3), y.split(3), strict=True):
            (mse_loss(model(part_x), part_y, reduction="sum") / len(x)).backward()
        optimizer.step()
        schedule.step()
        run.report(step, val_loss=evaluate(model))


def with_closure(run: Run) -> None:
    model, loader = Net(), batches_of()
    optimizer = run.optimizer(model)
    schedule = run.schedule(optimizer, loader)
    for step, batch in run.steps(loader):
        optimizer.step(partial(differentiate, optimizer, model, batch))
        schedule.step()
        run.report(step, val_loss=evaluate(model))


def with_scaler(run: Run) -> None:
    model, loader = Net(), batches_of()
    optimizer = run.optimizer(model)
    schedule = run.schedule(optimizer, loader)
    scaler = torch.amp.GradScaler("cpu", growth_interval=5)
    run.checkpoint(scaler=scaler)
    for step, (x, y) in run.steps(loader):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = mse_loss(model(x).float(), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        schedule.step()
        run.report(step, val_loss=evaluate(model), scale=scaler.get_scale())


def adversarial(run: Run, names: tuple[str | None, str | None] = (None, None)) -> None:
    """Two models, two optimizers, two schedules; each step trains both."""
    maker, judge, loader = nn.Linear(2, 4), Net(), batches_of()
    maker_optimizer = run.optimizer(maker, name=names[0])
    judge_optimizer = run.optimizer(judge, name=names[1])
    schedules = [run.schedule(o, loader) for o in (maker_optimizer, judge_optimizer)]
    for step, (x, _) in run.steps(loader):
        made = maker(torch.randn(len(x), 2))
        judge_optimizer.zero_grad()
        (judge(made.detach()).mean() - judge(x).mean() + judge(x).square().mean()).backward()
        judge_optimizer.step()
        maker_optimizer.zero_grad()
        (-judge(made).mean()).backward()
        maker_optimizer.step()
        for schedule in schedules:
            schedule.step()
        run.report(step, val_loss=evaluate(judge))


def adversarial_by_name(run: Run) -> None:
    """The same, each model with a name."""
    adversarial(run, ("maker", "judge"))


def suggesting(run: Run) -> None:
    model, loader = Net(), batches_of()
    model.dropout.p = run.suggest_float("dropout", 0.0, 0.5)
    optimizer = run.optimizer(model)
    for step, batch in run.steps(loader):
        differentiate(optimizer, model, batch)
        optimizer.step()
        run.report(step, val_loss=evaluate(model))


LOOPS: dict[str, Callable[[Run], Any]] = {
    loop.__name__: loop
    for loop in (
        by_step,
        over_loader,
        over_noisy_loader,
        over_own_batches,
        over_shuffled_batches,
        scheduled_by_epoch,
        unscheduled,
        accumulating,
        with_closure,
        with_scaler,
        adversarial,
        adversarial_by_name,
        suggesting,
    )
}
