"""The searches that are compared: plain Optuna's, others of Optuna's, and tuner's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import optuna

from benchmarks.search.plain import search_by_first_evaluation, search_plainly
from benchmarks.search.play import search_by_tuner
from benchmarks.search.replay import Searching
from benchmarks.search.spaces import EVALUATIONS, former_space, present_space, with_length
from tuner.domain.catalog.dimensions import Float
from tuner.domain.catalog.hyperparameters import LogNormalPrior
from tuner.search.knowledge import Knowledge
from tuner.search.portfolio import Entry, fit_portfolio

Strategy = Callable[[int, int, Knowledge], Searching]
PLAIN = "plain"
TUNER = "tuner"


def _plainly(**options: Any) -> Strategy:
    return lambda steps, seed, knowledge: search_plainly(
        with_length(former_space(), steps), seed, **options
    )


def _plainly_here(*, portfolio: bool) -> Strategy:
    """Returns plain Optuna in tuner's space of today, with or without tuner's portfolio."""

    def search(steps: int, seed: int, knowledge: Knowledge) -> Searching:
        spec = with_length(present_space(), steps)
        first = fit_portfolio(spec, knowledge.portfolio) if portfolio else []
        return search_plainly(spec, seed, first=first)

    return search


def _by_tuner(
    *,
    lanes: int = 1,
    evaluations: int | None = 400,
    foresees: bool = False,
    knowing: Callable[[Knowledge], Knowledge] = lambda knowledge: knowledge,
    **own: Any,
) -> Strategy:
    """Returns tuner's search, with what it knows beforehand or a choice of the study file changed.

    Args:
        lanes: As for :func:`search_by_tuner`.
        evaluations: Likewise.
        foresees: Likewise.
        knowing: Returns what it takes for knowledge.
        own: Values of the table ``[search]``.
    """

    def search(steps: int, seed: int, knowledge: Knowledge) -> Searching:
        spec = with_length(present_space(), steps)
        spec = spec.model_copy(update={"search": spec.search.model_copy(update=own)})
        return search_by_tuner(
            spec,
            seed,
            knowing(knowledge),
            lanes=lanes,
            evaluations=evaluations,
            foresees=foresees,
        )

    return search


def _without_portfolio(knowledge: Knowledge) -> Knowledge:
    return Knowledge((), knowledge.priors)


def _without_priors(knowledge: Knowledge) -> Knowledge:
    return Knowledge(knowledge.portfolio, {})


def misled(knowledge: Knowledge) -> Knowledge:
    """Returns knowledge of rates two decades too low."""
    return Knowledge(
        [_lowered(entry) for entry in knowledge.portfolio],
        {name: replace(prior, mean=prior.mean - 2) for name, prior in knowledge.priors.items()},
    )


def _lowered(entry: Entry) -> Entry:
    """Returns an entry of a portfolio with its learning rates two decades lower."""
    rates = {name: value / 100 for name, value in entry[entry["optimizer"]].items() if "lr" in name}
    return {**entry, entry["optimizer"]: {**entry[entry["optimizer"]], **rates}}


def inverted(knowledge: Knowledge) -> Knowledge:
    """Returns knowledge whose priors lie as far from the other end of each range."""
    return Knowledge(
        knowledge.portfolio,
        {
            name: replace(prior, mean=_mirror(name, prior))
            for name, prior in knowledge.priors.items()
        },
    )


def _mirror(name: str, prior: LogNormalPrior) -> float:
    optimizer, key = name.split(".")
    axis = present_space().optimizer[optimizer][key]
    if not isinstance(axis, Float):
        raise TypeError(f"{name} is no range")
    return math.log10(axis.low) + math.log10(axis.high) - prior.mean


STRATEGIES: dict[str, Strategy] = {
    PLAIN: _plainly(),
    "Optuna Hyperband": _plainly(
        pruner=lambda: optuna.pruners.HyperbandPruner(max_resource=EVALUATIONS)
    ),
    "random": _plainly(sampler="random", pruner=optuna.pruners.NopPruner),
    "first evaluation": lambda steps, seed, _: search_by_first_evaluation(
        with_length(former_space(), steps), seed
    ),
    "plain, our space": _plainly_here(portfolio=False),
    "and our portfolio": _plainly_here(portfolio=True),
    "random + ASHA": _by_tuner(knowing=_without_portfolio, sampler="random", pruner="asha"),
    TUNER: _by_tuner(),
    "tuner, 8 lanes": _by_tuner(lanes=8),
    "whole study": _by_tuner(evaluations=None),
    "whole, 8 lanes": _by_tuner(evaluations=None, lanes=8),
    "without portfolio": _by_tuner(knowing=_without_portfolio),
    "without priors": _by_tuner(knowing=_without_priors),
    "without pausing": _by_tuner(pruner="asha"),
    "with TPE": _by_tuner(sampler="tpe"),
    "misled": _by_tuner(knowing=misled),
    "inverted priors": _by_tuner(knowing=inverted),
    "oracle judges": _by_tuner(foresees=True),
    "oracle, evenly": _by_tuner(knowing=_without_portfolio, sampler="random", foresees=True),
}
"""The strategies by name. The lower rows are tuner with one part taken out or exchanged, or with
false knowledge; an oracle tells what a search could do at best that draws as tuner does, or evenly.
"""
