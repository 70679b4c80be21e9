"""The reader's model for a Trainer, its data and arguments."""

import torch
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, TrainingArguments


class Sums(Dataset[dict[str, torch.Tensor]]):
    """Sequences of numbers, to be told by whether more than half of them are large."""

    def __init__(self, rows: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.tokens = torch.randint(2, 30, (rows, 9), generator=generator)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        tokens = self.tokens[row]
        return {"input_ids": tokens, "labels": ((tokens > 15).sum() > 4).long()}


def model_init(trial: object = None) -> BertForSequenceClassification:
    """Returns a new model."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(vocab_size=30, intermediate_size=32, max_position_embeddings=16, **sizes)
    return BertForSequenceClassification(config)


data = {"train": Sums(320, seed=0), "val": Sums(160, seed=1)}
args = TrainingArguments(
    "out",
    per_device_train_batch_size=32,
    num_train_epochs=2,
    eval_strategy="epoch",
    report_to="none",
    disable_tqdm=True,
)
