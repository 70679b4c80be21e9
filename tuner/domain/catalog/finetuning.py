"""How hyperparameters are searched where a model arrives with trained weights.

Sources, abbreviated as ``tuner.report.catalog`` spells them out: papers on fine-tuning, and J, our
judgement. None has been measured on tuner's own bench, which trains from scratch.
"""

from __future__ import annotations

from dataclasses import replace

from tuner.domain.catalog.dimensions import Choice, Float
from tuner.domain.catalog.hyperparameters import LR, Finetuning, LogNormalPrior


def around(rate: float) -> Finetuning:
    """Returns a range for the rate of an optimizer that is known by its default alone."""
    return _rate(1e-3 * rate, 3 * rate, "J, a tenth of the rates from scratch, widened below")


def _rate(low: float, high: float, source: str, mean: float | None = None) -> Finetuning:
    """Returns the range of a learning rate, and the mean of log10 of good ones if known."""
    prior = None if mean is None else LogNormalPrior(mean, 0.5)
    return Finetuning(Float(low=low, high=high, log=True), source, prior)


SGD = _rate(1e-5, 0.3, "J, as momentum with up to ten times the rate", -2.0)
MOMENTUM = _rate(1e-5, 0.1, "KO, VT, widened below; prior VT", -2.5)
ADAM = _rate(1e-6, 1e-3, "DV, RB, QL, widened; prior DV, RB, QL", -4.4)
ADAM_LIKE = replace(ADAM, source="J, as adam")
HELPER = replace(ADAM, breadth=LR)
"""Of an optimizer beside another: always searched, since its default is a rate from scratch."""

ADAGRAD = _rate(1e-5, 0.1, "J", -2.5)
MUON = _rate(1e-4, 0.05, "J, a tenth of the rates from scratch", -2.7)
ADAFACTOR = _rate(1e-5, 1e-2, "T5, widened; prior T5", -3.0)
LION = _rate(1e-7, 3e-4, "J, adam's over 3 to 10", -5.0)
FREE_ADAM = _rate(1e-6, 1e-2, "J, up to ten times adam's", -3.9)
FREE_SGD = _rate(1e-4, 5.0, "J, up to fifty times momentum's", -1.5)
DECAY = Finetuning(Float(low=1e-4, high=0.1, log=True), "DV, RB, widened below")
WARMUP = Finetuning(Choice(choices=(0.06, 0.1)), "RB, DV", breadth=LR)
"""A warmup is always part of it: trained weights suffer from the first large steps."""
