"""Trains a small network by DDP: each trial on as many processes as ``--processes`` says."""

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

from tuner import Run


def train(run: Run) -> None:
    """Trains one trial; every rank runs this."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1024, 1, generator=generator) * 6 - 3
    y = x.sin() + 0.05 * torch.randn(1024, 1, generator=generator)
    data = TensorDataset(x[:768], y[:768])
    # A rank's share of train.batch_size; each rank then takes its part of the batches.
    loader = DataLoader(data, batch_size=run.batch_size, shuffle=True, drop_last=True)

    network = torch.nn.Sequential(torch.nn.Linear(1, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
    network.to(run.device)
    model: torch.nn.Module = network
    if run.world_size > 1:
        model = DistributedDataParallel(network)
    optimizer = run.optimizer(model)
    schedule = run.schedule(optimizer, loader)
    for _step, batch in run.steps(loader):
        inputs, targets = (part.to(run.device) for part in batch)
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(inputs), targets).backward()
        optimizer.step()
        schedule.step()
        if run.due():
            with torch.no_grad():
                rest = (part[768:].to(run.device) for part in (x, y))
                run.report(val_loss=torch.nn.functional.mse_loss(network(next(rest)), next(rest)))
