"""Pruners that judge many trials at once: those of a cohort, which stand at the same evaluation."""

from __future__ import annotations

import abc
import math
from collections import Counter
from collections.abc import Sequence

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

    The others are complete trials and the cohort's other lanes, of which those that are over are
    the worst.

    Args:
        first: The progress from which on lanes are judged.
    """

    def __init__(self, first: int) -> None:
        self._first = first

    def prune_lanes(self, study: Study, lanes: Sequence[FrozenTrial]) -> list[bool]:
        """Tells which lanes should stop."""
        progress = max(lane.last_step or 0 for lane in lanes)
        complete = others_of(study, lanes, (TrialState.COMPLETE,))
        if progress < self._first or len(complete) + len(lanes) <= STARTUP_TRIALS:
            return [False] * len(lanes)
        direction = study.direction
        past = [t for t in complete if progress in t.intermediate_values]
        bars = _medians_of_others(
            _costs(past, progress, direction), _costs(lanes, progress, direction)
        )
        best = np.array([_least_cost(lane, progress, direction) for lane in lanes])
        through = Counter(trial.params["optimizer"] for trial in complete)
        optimizers = np.array([lane.params["optimizer"] for lane in lanes])
        ahead = [
            through[name] + int((best[optimizers == name] < cost).sum())
            for name, cost in zip(optimizers.tolist(), best, strict=True)
        ]
        return ((best > bars) & (np.array(ahead) >= OWN_TRIALS)).tolist()  # type: ignore[no-any-return]


def others_of(
    study: Study, lanes: Sequence[FrozenTrial], states: tuple[TrialState, ...]
) -> list[FrozenTrial]:
    """Returns the trials of a study in some states that are none of the lanes."""
    own = {number_of(lane) for lane in lanes}
    trials = study.get_trials(deepcopy=False, states=states)
    return [trial for trial in trials if number_of(trial) not in own]


def cost_of(value: float, direction: StudyDirection) -> float:
    """Returns how bad a value is: the larger, the worse."""
    if math.isnan(value):
        return math.inf
    return value if direction is StudyDirection.MINIMIZE else -value


def _costs(trials: Sequence[FrozenTrial], progress: int, direction: StudyDirection) -> Costs:
    return np.array(
        [cost_of(t.intermediate_values.get(progress, math.nan), direction) for t in trials]
    )


def _least_cost(lane: FrozenTrial, progress: int, direction: StudyDirection) -> float:
    """Returns the cost of a lane's best evaluation; a lane that is over is the worst."""
    if math.isnan(lane.intermediate_values.get(progress, math.nan)):
        return math.inf
    return min(cost_of(value, direction) for value in lane.intermediate_values.values())


def _medians_of_others(past: Costs, lanes: Costs) -> Costs:
    """Returns for each lane the median of past and other lanes; infinite if there are none."""
    if len(past) + len(lanes) == 1:
        return np.array([math.inf])
    return np.array(
        [np.median(np.concatenate([past, np.delete(lanes, i)])) for i in range(len(lanes))]
    )
