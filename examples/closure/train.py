"""Trains a small network on all handwritten digits at once, with L-BFGS."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy


def load_data():
    images, labels = load_digits(return_X_y=True)
    images, labels = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
    return (images[:1280], labels[:1280]), (images[1280:], labels[1280:])


@torch.no_grad()
def test(model, images, labels):
    return cross_entropy(model(images), labels).item()


def train(run):
    torch.manual_seed(run.seed)
    (images, labels), validation = load_data()
    model = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))
    optimizer = run.optimizer(model)
    schedule = run.schedule(optimizer)

    def closure():
        optimizer.zero_grad()
        loss = cross_entropy(model(images), labels)
        loss.backward()
        return loss

    for step in run.steps():
        optimizer.step(closure)
        schedule.step()
        if run.due():
            run.report(val_loss=test(model, *validation))
    return test(model, *validation)
