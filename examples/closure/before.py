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


def main():
    torch.manual_seed(0)
    (images, labels), validation = load_data()
    model = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=5)

    def closure():
        optimizer.zero_grad()
        loss = cross_entropy(model(images), labels)
        loss.backward()
        return loss

    for step in range(20):
        optimizer.step(closure)
    return test(model, *validation)


if __name__ == "__main__":
    print(f"val_loss={main()}")
