"""Trains a generator against a discriminator in a LightningModule that steps both itself."""

import lightning as L
import torch
from torch import nn
from torch.nn.functional import softplus
from torch.utils.data import DataLoader, TensorDataset


class Adversaries(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
        self.discriminator = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 1))

    def training_step(self, batch, batch_idx):
        g_optimizer, d_optimizer = self.optimizers()
        made = self.generator(torch.randn(len(batch[0]), 4))
        d_optimizer.zero_grad()
        real, fake = self.discriminator(batch[0]), self.discriminator(made.detach())
        self.manual_backward((softplus(-real) + softplus(fake)).mean())
        d_optimizer.step()
        g_optimizer.zero_grad()
        self.manual_backward(softplus(-self.discriminator(made)).mean())
        g_optimizer.step()
        for schedule in self.lr_schedulers():
            schedule.step()

    def validation_step(self, batch, batch_idx):
        points = self.generator(batch[0])
        off = (points.norm(dim=1) - 1).square().mean() + points.mean(0).square().sum()
        self.log("val_loss", off)

    def configure_optimizers(self):
        parts = (self.generator, self.discriminator)
        adams = [torch.optim.Adam(part.parameters(), lr=1e-3) for part in parts]
        return adams, [torch.optim.lr_scheduler.ExponentialLR(adam, 0.99) for adam in adams]


def load_data():
    angle = 2 * torch.pi * torch.rand(1280)
    points = torch.stack([angle.cos(), angle.sin()], 1) + 0.05 * torch.randn(1280, 2)
    return TensorDataset(points), TensorDataset(torch.randn(512, 4))


def main():
    L.seed_everything(0)
    training, noise = load_data()
    trainer = L.Trainer(max_epochs=5)
    trainer.fit(
        Adversaries(),
        DataLoader(training, batch_size=64, shuffle=True),
        DataLoader(noise, batch_size=512),
    )
    return trainer.callback_metrics["val_loss"].item()


if __name__ == "__main__":
    print(f"val_loss={main()}")
