"""A training loop of one's own: what it takes from tuner is its optimizer, steps and reports."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import tuner
from models.digits import Digits


def train(run: tuner.Run) -> float:
    """Trains a network on handwritten digits; its width and dropout are searched too."""
    data = Digits().data()
    loader = DataLoader(TensorDataset(*data.train), batch_size=run.batch_size, shuffle=True)
    inputs, labels = (tensor.to(run.device) for tensor in data.val)

    width = run.suggest_int("width", 16, 128, log=True)
    dropout = run.suggest_float("dropout", 0.0, 0.5)
    model = nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 10)
    ).to(run.device)
    optimizer = run.optimizer(model)
    schedule = run.schedule(optimizer, loader)

    val_loss = float("nan")
    for _, (x, y) in run.steps(loader):
        loss = F.cross_entropy(model(x.to(run.device)), y.to(run.device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        run.log(train_loss=loss)
        if run.due():
            model.eval()
            with run.evaluation(), torch.no_grad():
                val_loss = float(F.cross_entropy(model(inputs), labels))
            model.train()
            run.report(val_loss=val_loss)
    return val_loss
