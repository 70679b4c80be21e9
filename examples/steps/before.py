"""Trains a small network on handwritten digits: so many steps, a test now and then."""

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
    model.eval()
    loss = cross_entropy(model(images), labels).item()
    model.train()
    return loss


def main():
    torch.manual_seed(0)
    (images, labels), validation = load_data()
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(100):
        rows = torch.randint(len(images), (64,))
        optimizer.zero_grad()
        cross_entropy(model(images[rows]), labels[rows]).backward()
        optimizer.step()
    return test(model, *validation)


if __name__ == "__main__":
    print(f"val_loss={main()}")
