"""The reader's script, as it is."""

import argparse

import torch
from mine import evaluate, train_step, x, y
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, required=True)
parser.add_argument("--optimizer", required=True)
parser.add_argument("--width", type=int, required=True)
args = parser.parse_args()

model = nn.Sequential(nn.Linear(20, args.width), nn.ReLU(), nn.Linear(args.width, 2))
kind = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[args.optimizer]
optimizer = kind(model.parameters(), lr=args.lr)
loader = DataLoader(TensorDataset(x[:300], y[:300]), batch_size=30, shuffle=True)
for epoch in range(2):
    for batch in loader:
        train_step(model, optimizer, batch)
    print(f"step={10 * (epoch + 1)} val_loss={evaluate(model)}", flush=True)
