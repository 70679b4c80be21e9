"""Chooses the trials that TPE learns from in a large study: those that tell it most.

TPE parts the past in two. The best tenth, and of more than 250 trials never more than 25, tell
where to look. All others tell where not to, by a density in which a trial weighs the less the
older it is: of n the oldest weighs an n-th (old decay in Watanabe, Tree-Structured Parzen
Estimator, 2023; Optuna has it so). So the best have to be kept, and of the others a sample will do
that leans towards the recent ones. That pays, since a proposal costs as much as there are trials
to learn from.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

LIMIT = 2_000
"""Trials that TPE learns from at most; up to here it learns from all, exactly as Optuna does.

A quarter of them are the best, half the most recent, and a quarter the most recent ones of each
optimizer in equal parts, so that it is not forgotten of any how it did."""


def choose(trials: Sequence[FrozenTrial], sign: float, limit: int) -> set[int]:
    """Returns the places of the trials to learn from in a list of those that are over.

    A choice among those once chosen and later ones is the same as a choice among all.

    Args:
        trials: Complete and pruned trials, by number.
        sign: The factor, 1 or -1, that turns metrics into costs: the smaller, the better.
        limit: The most trials to choose, where there are fewer optimizers than a quarter of it.
    """
    places = range(len(trials))
    chosen = set(heapq.nsmallest(limit // 4, places, key=lambda i: _badness(trials[i], sign)))
    chosen |= set(places[-(limit // 2) :])
    by_optimizer: dict[object, list[int]] = defaultdict(list)
    for place in places:
        by_optimizer[trials[place].params.get("optimizer")].append(place)
    share = max(1, limit // 4 // len(by_optimizer))
    return chosen.union(*(own[-share:] for own in by_optimizer.values()))


def _badness(trial: FrozenTrial, sign: float) -> tuple[bool, float, float]:
    """Returns a sort key that orders trials as Optuna's TPE does, the best first."""
    if trial.state is TrialState.COMPLETE:
        return (False, sign * (trial.value or 0.0), 0.0)
    if not trial.intermediate_values:
        return (True, 1.0, 0.0)
    step, value = max(trial.intermediate_values.items())
    return (True, -step, math.inf if math.isnan(value) else sign * value)
