"""Pruners that judge many trials at once: those of a cohort, which stand at the same evaluation."""

from __future__ import annotations

import abc
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import optuna
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tuner.search.history import number_of

STARTUP_TRIALS = 5
"""Others that a trial is compared with, at least, before the median pruner stops it."""

OWN_TRIALS = 2
"""Trials of an optimizer that the median lets through, its default one of them, before others stop.

An optimizer that learns slowly at first would otherwise be known by its default alone."""

Costs = npt.NDArray[np.float64]


class LanePruner(optuna.pruners.BasePruner):
    """A pruner that ranks the lanes of a cohort against each other and against the past.

    A trial that trains alone is a cohort of one lane.
    """

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Tells whether a trial should stop."""
        return self.prune_lanes(study, [trial])[0]

    @abc.abstractmethod
    def prune_lanes(self, study: Study, lanes: Sequence[FrozenTrial]) -> list[bool]:
        """Tells which lanes should stop; what it says of those that are over means nothing.

        Args:
            study: The past; what it holds of the lanes themselves does not count.
            lanes: All trials of the cohort; those with fewer evaluations than others are over.
        """


class MedianPruner(LanePruner):
    """Stops a lane whose best evaluation is behind the median of all others at the same point.

    The others are complete trials, and the lanes of the cohort that have come as far: so half of
    those that are left of a cohort go at each evaluation, until an optimizer has too few through,
    or the past is harder to please.

    Args:
        first: The progress from which on lanes are judged.
    """

    def __init__(self, first: int) -> None:
        self._first = first

    def prune_lanes(self, study: Study, lanes: Sequence[FrozenTrial]) -> list[bool]:
        """Tells which lanes should stop."""
        progress = max(lane.last_step or 0 for lane in lanes)
        complete = others_of(study, lanes, (TrialState.COMPLETE,))
        present = _costs(lanes, progress, study.direction)
        trains = ~np.isnan(present)
        stops = np.full(len(lanes), fill_value=False)
        if progress >= self._first and len(complete) + trains.sum() > STARTUP_TRIALS:
            past = _costs(complete, progress, study.direction)
            best = np.array([_least_cost(lane, study.direction) for lane in lanes])[trains]
            bars = _medians_of_others(past[~np.isnan(past)], present[trains])
            optimizers = np.array([lane.params["optimizer"] for lane in lanes])[trains]
            through = Counter(trial.params["optimizer"] for trial in complete)
            stops[trains] = (best > bars) & (_places(best, optimizers, through) >= OWN_TRIALS)
        return [bool(stop) for stop in stops]


def others_of(
    study: Study, lanes: Sequence[FrozenTrial], states: tuple[TrialState, ...]
) -> list[FrozenTrial]:
    """Returns the trials of a study in some states that are none of the lanes."""
    own = {number_of(lane) for lane in lanes}
    trials = study.get_trials(deepcopy=False, states=states)
    return [trial for trial in trials if number_of(trial) not in own]


def sign_of(direction: StudyDirection) -> float:
    """Returns what values are multiplied with, so that the smaller is the better."""
    return 1.0 if direction is StudyDirection.MINIMIZE else -1.0


def _costs(trials: Sequence[FrozenTrial], progress: int, direction: StudyDirection) -> Costs:
    """Returns how bad trials were at a point of progress, NaN where they did not get there."""
    sign = sign_of(direction)
    return np.array([sign * t.intermediate_values.get(progress, math.nan) for t in trials])


def _least_cost(lane: FrozenTrial, direction: StudyDirection) -> float:
    """Returns the cost of a lane's best evaluation so far."""
    sign = sign_of(direction)
    return min((sign * value for value in lane.intermediate_values.values()), default=math.inf)


def _medians_of_others(past: Costs, lanes: Costs) -> Costs:
    """Returns for each lane the median of past and other lanes; infinite if there are none."""
    if len(past) + len(lanes) == 1:
        return np.array([math.inf])
    return np.array(
        [np.median(np.concatenate([past, np.delete(lanes, i)])) for i in range(len(lanes))]
    )


def _places(costs: Costs, optimizers: npt.NDArray[np.str_], through: Mapping[str, int]) -> Costs:
    """Returns how many trials of each lane's optimizer are complete, or lanes before it."""
    return np.array(
        [
            through.get(name, 0) + (costs[optimizers == name] < cost).sum()
            for name, cost in zip(optimizers.tolist(), costs, strict=True)
        ]
    )
