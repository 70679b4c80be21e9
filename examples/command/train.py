"""Trains a small network on a noisy sine; it knows nothing of tuner."""

import argparse

import torch

parser = argparse.ArgumentParser()
parser.add_argument("--optimizer", default="adam", choices=["adam", "sgd"])
parser.add_argument("--lr", type=float, default=1e-3)
parser.add_argument("--weight-decay", type=float, default=0.0)
parser.add_argument("--momentum", type=float, default=0.0)
parser.add_argument("--width", type=int, default=32)
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()

torch.manual_seed(options.seed)
x = torch.linspace(-3, 3, 512).unsqueeze(1)
y = x.sin() + 0.05 * torch.randn_like(x)
training, validation = torch.arange(512) % 4 != 0, torch.arange(512) % 4 == 0

model = torch.nn.Sequential(
    torch.nn.Linear(1, options.width), torch.nn.Tanh(), torch.nn.Linear(options.width, 1)
)
settings = {"lr": options.lr, "weight_decay": options.weight_decay}
if options.optimizer == "adam":
    optimizer = torch.optim.Adam(model.parameters(), **settings)
else:
    optimizer = torch.optim.SGD(model.parameters(), momentum=options.momentum, **settings)

for step in range(1, options.steps + 1):
    optimizer.zero_grad()
    torch.nn.functional.mse_loss(model(x[training]), y[training]).backward()
    optimizer.step()
    if step % 20 == 0:
        with torch.no_grad():
            loss = torch.nn.functional.mse_loss(model(x[validation]), y[validation])
        print(f"step={step} val_loss={loss:.17g}")
