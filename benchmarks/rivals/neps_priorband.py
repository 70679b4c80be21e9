"""NePS' PriorBand: Hyperband that draws near a prior, near the best so far, or evenly."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import Literal

import neps

from benchmarks.rivals.asking import Searched, searched_axes
from benchmarks.search.spaces import EVALUATIONS
from tuner.domain.catalog.dimensions import Choice, Float, Value
from tuner.domain.spec import StudySpec
from tuner.search.knowledge import Knowledge
from tuner.search.portfolio import fit_portfolio

logging.getLogger("neps").setLevel(logging.ERROR)

Confidence = Literal["low", "medium", "high"]

_FIDELITY = "evaluations"


class PriorBand:
    """Holds a search of PriorBand (Mallik et al., NeurIPS 2023).

    Args:
        spec: The space, given flat.
        prior: The configuration believed to be best, as far as one is.
        confidence: How sure that is.
    """

    def __init__(self, spec: StudySpec, prior: Mapping[str, Value], confidence: Confidence) -> None:
        axes = searched_axes(spec)
        space = {n: _to_parameter(axis, prior.get(n), confidence) for n, axis in axes.items()}
        space[_FIDELITY] = neps.HPOInteger(1, EVALUATIONS, is_fidelity=True)
        self._search = neps.AskAndTell(
            neps.algorithms.priorband(neps.SearchSpace(space), sample_prior_first=True)
        )
        self._trial: neps.Trial | None = None

    def ask(self) -> tuple[Mapping[str, Value], int]:
        """Returns what it wants next: a configuration up to a rung."""
        self._trial = self._search.ask()
        return self._trial.config, int(self._trial.config[_FIDELITY])

    def tell(self, loss: float) -> None:
        """Takes the loss there."""
        self._search.tell(self._trial, float(loss))


def start(
    spec: StudySpec, seed: int, knowledge: Knowledge, confidence: Confidence = "medium"
) -> PriorBand:
    """Returns PriorBand with what tuner knows as its prior.

    Args:
        spec: The space.
        seed: Nothing: NePS draws from the global generators.
        knowledge: What tuner knows.
        confidence: ``medium`` as in NePS' own examples, a normal of half an axis.
    """
    return PriorBand(spec, to_prior(spec, knowledge), confidence)


start_surely = functools.partial(start, confidence="high")
"""Returns it with a normal of a quarter of an axis, about as wide as tuner's priors are."""


def to_prior(spec: StudySpec, knowledge: Knowledge) -> dict[str, Value]:
    """Returns one configuration as NePS wants its prior: a value an axis, as far as one is known.

    Optimizer and schedule are those of the first entry of the portfolio that fits, the other
    values those of the first entry that has them, and learning rates without an entry those of
    the priors.
    """
    axes = searched_axes(spec)
    prior: dict[str, Value] = {}
    for point in fit_portfolio(spec, knowledge.portfolio):
        prior = {**point, **prior}
    for name, belief in knowledge.priors.items():
        axis = axes.get(name)
        if isinstance(axis, Float):
            prior.setdefault(name, min(max(10**belief.mean, axis.low), axis.high))
    return {name: value for name, value in prior.items() if name in axes}


def _to_parameter(
    axis: Searched, prior: Value | None, confidence: Confidence
) -> neps.HPOFloat | neps.HPOCategorical:
    if isinstance(axis, Choice):
        return neps.HPOCategorical([*axis.choices], prior=prior, prior_confidence=confidence)
    return neps.HPOFloat(
        axis.low, axis.high, log=axis.log, prior=prior, prior_confidence=confidence
    )
