"""Trains on a stream of examples, which has no length."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, IterableDataset


class Digits(IterableDataset):
    """Handwritten digits in no order, again and again."""

    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __iter__(self):
        while True:
            row = int(torch.randint(len(self.images), ()))
            yield self.images[row], self.labels[row]


def load_data():
    images, labels = load_digits(return_X_y=True)
    images, labels = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
    return (images[:1280], labels[:1280]), (images[1280:], labels[1280:])


@torch.no_grad()
def test(model, images, labels):
    return cross_entropy(model(images), labels).item()


def train(run):
    torch.manual_seed(run.seed)
    training, validation = load_data()
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = run.optimizer(model)
    schedule = run.schedule(optimizer)
    for step, (images, labels) in enumerate(DataLoader(Digits(*training), batch_size=64)):
        optimizer.zero_grad()
        cross_entropy(model(images), labels).backward()
        optimizer.step()
        schedule.step()
        if run.due():
            run.report(val_loss=test(model, *validation))
        if step == 99:
            break
    return test(model, *validation)
