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


def main():
    torch.manual_seed(0)
    training, validation = load_data()
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step, (images, labels) in enumerate(DataLoader(Digits(*training), batch_size=64)):
        optimizer.zero_grad()
        cross_entropy(model(images), labels).backward()
        optimizer.step()
        if step == 99:
            break
    return test(model, *validation)


if __name__ == "__main__":
    print(f"val_loss={main()}")
