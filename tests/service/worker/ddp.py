"""Training loops of several ranks, for tests of them."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import optuna
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

from tuner import Run

EXAMPLES = 64


def train(run: Run) -> None:
    """Trains a small network in float64, on a shuffled loader, with DDP where there are ranks."""
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(EXAMPLES, 3, generator=generator, dtype=torch.float64)
    targets = inputs.sin().sum(1, keepdim=True)
    loader = DataLoader(
        TensorDataset(inputs, targets), batch_size=run.batch_size, shuffle=True, drop_last=True
    )
    network = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    model: nn.Module = DistributedDataParallel(network) if run.world_size > 1 else network
    optimizer = run.optimizer(model)
    schedule = run.schedule(optimizer, loader)
    note(run, "begins")
    for step, (x, y) in run.steps(loader):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
        schedule.step()
        _misbehave(run, step)
        if run.due():
            with torch.no_grad():
                run.report(val_loss=nn.functional.mse_loss(network(inputs), targets))
            note(run, f"reported {step}")


def note(run: Run, what: str) -> None:
    """Adds a line to what a rank has done."""
    assert run.place is not None
    run.place.folder.mkdir(parents=True, exist_ok=True)
    with (run.place.folder / f"notes-{run.rank}.txt").open("a") as file:
        file.write(f"{what}\n")


def _misbehave(run: Run, step: int) -> None:
    """Does, once, what a file in the trial's folder says: ``RANK STEP DEED``."""
    if run.place is None or not (run.place.folder.parent / "deed").exists():
        return
    path = run.place.folder.parent / "deed"
    rank, at, deed = path.read_text().split()
    if (int(rank), int(at)) != (run.rank, step):
        return
    path.unlink()
    if deed == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if deed == "sleep":
        time.sleep(20)
    if deed == "exit":
        os._exit(0)
    if deed == "raise":
        raise ValueError("the scale is off")
    if deed == "report":
        run.report(val_loss=1.0)
    sys.stdout.write(f"{Path(__file__).name}\n")


def alone(run: Run) -> None:
    """Trains a network without DDP, whose ranks so train one each."""
    network = nn.Linear(3, 1)
    optimizer = run.optimizer(network)
    inputs = torch.randn(EXAMPLES, 3, generator=torch.Generator().manual_seed(3))
    loader = DataLoader(TensorDataset(inputs), batch_size=run.batch_size, shuffle=True)
    for _, (x,) in run.steps(loader):
        optimizer.zero_grad()
        loss = (network(x) - x.sum(1, keepdim=True)).square().mean()
        loss.backward()
        optimizer.step()
        if run.due():
            run.report(val_loss=loss)


def shard(run: Run) -> None:
    """Trains a network whose parameters lie in parts on the ranks."""
    from torch.distributed.fsdp import fully_shard

    network = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    fully_shard(network)
    optimizer = run.optimizer(network)
    for _ in run.steps():
        optimizer.zero_grad()
        loss = network(torch.ones(4, 3)).square().mean()
        loss.backward()
        optimizer.step()
        if run.due():
            run.report(val_loss=loss)


class Strict(optuna.pruners.BasePruner):
    """Stops every trial at step 10."""

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        """Tells whether a trial is to stop."""
        return trial.last_step == 10


def strays(run: Run) -> None:
    """Has rank 1 suggest what rank 0 does not."""
    optimizer = run.optimizer(nn.Linear(1, 1))
    if run.rank:
        run.suggest_int("width", 1, 3)
    for _ in run.steps():
        optimizer.step()
        if run.due():
            run.report(val_loss=1.0)
