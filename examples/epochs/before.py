"""Trains a small network on handwritten digits: epochs of batches, a test after each."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset


def load_data():
    images, labels = load_digits(return_X_y=True)
    examples = TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels))
    split = torch.Generator().manual_seed(0)
    return torch.utils.data.random_split(examples, [1280, 517], split)


@torch.no_grad()
def test(model, loader):
    model.eval()
    losses = [cross_entropy(model(images), labels) for images, labels in loader]
    model.train()
    return torch.stack(losses).mean().item()


def main():
    torch.manual_seed(0)
    training, validation = load_data()
    loader = DataLoader(training, batch_size=64, shuffle=True)
    val_loader = DataLoader(validation, batch_size=517)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for epoch in range(5):
        for images, labels in loader:
            optimizer.zero_grad()
            cross_entropy(model(images), labels).backward()
            optimizer.step()
        val_loss = test(model, val_loader)
    return val_loss


if __name__ == "__main__":
    print(f"val_loss={main()}")
