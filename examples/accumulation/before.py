"""Trains in mixed precision, with gradients of two batches a step, scaled and clipped."""

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
def test(model, data):
    model.eval()
    loss = cross_entropy(model(data[:][0]), data[:][1]).item()
    model.train()
    return loss


def main():
    torch.manual_seed(0)
    training, validation = load_data()
    loader = DataLoader(training, batch_size=32, shuffle=True)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler("cpu")
    for epoch in range(5):
        for index, (images, labels) in enumerate(loader):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = cross_entropy(model(images).float(), labels) / 2
            scaler.scale(loss).backward()
            if index % 2 == 1:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
        val_loss = test(model, validation)
    return val_loss


if __name__ == "__main__":
    print(f"val_loss={main()}")
