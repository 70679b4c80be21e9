"""A training loop of your own, tuned: what it takes from tuner is marked with numbers."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import tuner


def load_data() -> tuple[TensorDataset, TensorDataset]:
    """Returns 1,280 handwritten digits to train on, and 517 others to measure by."""
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
    return TensorDataset(x[:1280], y[:1280]), TensorDataset(x[1280:], y[1280:])


def train(run: tuner.Run) -> None:
    """Trains one trial; ``run`` seeds it, gives it its settings, and takes its reports."""
    training, validation = load_data()
    loader = DataLoader(training, batch_size=run.batch_size, shuffle=True)
    inputs, labels = (tensor.to(run.device) for tensor in validation.tensors)

    # 1. Anything of yours can be searched too: floats, ints, choices.
    width = run.suggest_int("width", 16, 128, log=True)
    dropout = run.suggest_float("dropout", 0.0, 0.5)
    model = nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 10)
    ).to(run.device)

    # 2. The trial's optimizer and schedule, in place of torch.optim.…(model.parameters()).
    optimizer = run.optimizer(model)
    schedule = run.schedule(optimizer, loader)

    # 3. The trial's steps, over the loader epoch after epoch: a trial can be stopped and go on.
    for _, (x, y) in run.steps(loader):
        loss = F.cross_entropy(model(x.to(run.device)), y.to(run.device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        run.log(train_loss=loss)

        # 4. An evaluation wherever the study asks for one; trials that are behind stop here.
        if run.due():
            model.eval()
            with run.evaluation(), torch.no_grad():
                outputs = model(inputs)
            model.train()
            run.report(
                val_loss=F.cross_entropy(outputs, labels),
                accuracy=(outputs.argmax(1) == labels).float().mean(),
            )
