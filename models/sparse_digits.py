"""Handwritten digits as bags of words: an embedding of which a batch touches few rows."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.digits import Digits
from tuner import Batch, Data

_LEVELS = 17


class Bag(nn.Module):
    """Averages the embeddings of a row of words, then classifies the average."""

    def __init__(self) -> None:
        super().__init__()
        # A word is a pixel at one of its 17 levels of grey; its gradient is sparse.
        self.words = nn.EmbeddingBag(64 * _LEVELS, 32, mode="mean", sparse=True)
        self.head = nn.Linear(32, 10)

    def forward(self, words: Tensor) -> Tensor:
        """Returns logits of shape (N, 10) of words of shape (N, 64)."""
        logits: Tensor = self.head(torch.tanh(self.words(words)))
        return logits


class SparseDigits:
    """The images of :class:`models.digits.Digits`, told as 64 words out of 1,088 each."""

    def model(self) -> nn.Module:
        """Returns the untrained network."""
        return Bag()

    def data(self) -> Data:
        """Returns words of shape (N, 64) and labels of shape (N,)."""
        digits = Digits().data()
        return Data(train=_to_words(digits.train), val=_to_words(digits.val))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Returns the cross-entropy."""
        words, labels = batch
        return F.cross_entropy(model(words), labels)

    def metrics(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Returns cross-entropy and accuracy."""
        words, labels = batch
        logits = model(words)
        return {
            "val_loss": F.cross_entropy(logits, labels),
            "val_accuracy": (logits.argmax(1) == labels).float().mean(),
        }


def _to_words(batch: Batch) -> Batch:
    images, labels = batch
    levels = (images * (_LEVELS - 1)).round().long()
    return levels + _LEVELS * torch.arange(64), labels
