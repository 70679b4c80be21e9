"""Trains a tiny BERT with a Trainer, which computes its accuracy."""

import torch
from torch.utils.data import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainingArguments,
    set_seed,
)

from tuner.integrations.transformers import attach


class Sums(Dataset):
    """Sequences of numbers, to be told by whether more than half of them are large."""

    def __init__(self, rows, seed):
        generator = torch.Generator().manual_seed(seed)
        self.tokens = torch.randint(2, 30, (rows, 9), generator=generator)

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, row):
        tokens = self.tokens[row]
        return {"input_ids": tokens, "labels": ((tokens > 15).sum() > 4).long()}


def build_model():
    config = BertConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    return BertForSequenceClassification(config)


def compute_metrics(prediction):
    return {"accuracy": float((prediction.predictions.argmax(1) == prediction.label_ids).mean())}


def train(run):
    set_seed(run.seed)
    args = TrainingArguments(
        "out",
        seed=0,
        per_device_train_batch_size=32,
        num_train_epochs=3,
        learning_rate=1e-3,
        eval_strategy="epoch",
        report_to="none",
    )
    trainer = Trainer(
        build_model(),
        args,
        train_dataset=Sums(640, seed=0),
        eval_dataset=Sums(320, seed=1),
        compute_metrics=compute_metrics,
    )
    trainer.train(resume_from_checkpoint=attach(trainer, run))
    return trainer.evaluate()["eval_accuracy"]
