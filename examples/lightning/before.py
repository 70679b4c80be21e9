"""Trains a small network on handwritten digits with Lightning."""

import lightning as L
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset


class Classifier(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 10))

    def training_step(self, batch, batch_idx):
        images, labels = batch
        loss = cross_entropy(self.net(images), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        self.log("val_loss", cross_entropy(self.net(images), labels))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def load_data():
    images, labels = load_digits(return_X_y=True)
    examples = TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels))
    split = torch.Generator().manual_seed(0)
    return torch.utils.data.random_split(examples, [1280, 517], split)


def main():
    L.seed_everything(0)
    training, validation = load_data()
    trainer = L.Trainer(max_epochs=5)
    trainer.fit(
        Classifier(),
        DataLoader(training, batch_size=64, shuffle=True),
        DataLoader(validation, batch_size=517),
    )
    return trainer.callback_metrics["val_loss"].item()


if __name__ == "__main__":
    print(f"val_loss={main()}")
