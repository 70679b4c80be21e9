"""The regimes of training: from scratch, or on from trained weights."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

Regime = Literal["scratch", "finetune"]

SCRATCH: Regime = "scratch"
"""The regime of a model whose weights are drawn at random as a trial begins."""

FINETUNE: Regime = "finetune"
"""The regime of a model that arrives with trained weights."""


class Arrival(StrEnum):
    """The weights that a model has as a trial begins.

    FRESH ones hang on the trial's seed. TRAINED ones do not. REPEATED ones do not either, but look
    as freshly drawn ones do: the model's code seeds itself.
    """

    FRESH = "fresh"
    TRAINED = "trained"
    REPEATED = "repeated"
