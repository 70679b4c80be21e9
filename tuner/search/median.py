"""The median pruner, which judges the trials of a cohort at the same evaluation all at once."""

from __future__ import annotations

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from optuna.trial import FrozenTrial, TrialState

from tuner.search.lane_pruner import LanePruner
from tuner.search.past import Past

STARTUP_TRIALS = 5
"""The least number of other trials that one is compared with before the median pruner stops it."""

Costs = npt.NDArray[np.float64]


class MedianPruner(LanePruner):
    """Stops a lane whose best evaluation is behind the median of all others at the same point.

    The others are complete trials, and the lanes of the cohort that have come as far: so half of
    those that are left of a cohort go at each evaluation, unless the past is harder to please. A
    trial that has reached the target of its study before is better than all that have not.

    Args:
        spare: Complete trials that an optimizer must have before others of it are stopped.
    """

    def __init__(self, spare: int = 0) -> None:
        self._spare = spare
        self._seen = 0
        # Of complete trials: how many each optimizer has, and their costs by progress.
        self._through: Counter[str] = Counter()
        self._costs: dict[int, array[float]] = defaultdict(lambda: array("d"))
        # The progress at which trials have reached the target.
        self._reached = array("d")

    def prune_lanes(self, past: Past, lanes: Sequence[FrozenTrial]) -> list[bool]:
        """Returns whether each lane should stop."""
        self._learn(past)
        progress = max(lane.last_step or 0 for lane in lanes)
        own = [t for t in past.ended_as(lanes) if t.state is TrialState.COMPLETE]
        through = self._through - Counter(trial.params["optimizer"] for trial in own)
        costs = _costs(lanes, progress, past.sign)
        trains = ~np.isnan(costs)
        stops = np.full(len(lanes), fill_value=False)
        if through.total() + trains.sum() > STARTUP_TRIALS:
            complete = np.array(self._costs.get(progress, ()))
            for cost in _costs(own, progress, past.sign):
                complete = np.delete(complete, np.flatnonzero(complete == cost)[:1])
            before = np.count_nonzero(np.array(self._reached) < progress)
            complete = np.concatenate([complete, np.full(before, -math.inf)])
            best = np.array([_least_cost(lane, past.sign) for lane in lanes])[trains]
            bars = _medians_of_others(complete, costs[trains])
            optimizers = np.array([lane.params["optimizer"] for lane in lanes])[trains]
            stops[trains] = (best > bars) & (_places(best, optimizers, through) >= self._spare)
        return [bool(stop) for stop in stops]

    def _learn(self, past: Past) -> None:
        """Takes in the trials that have ended since it last did."""
        for trial in past.ended[self._seen :]:
            if trial.state is TrialState.COMPLETE:
                self._through[trial.params["optimizer"]] += 1
                if trial.user_attrs.get("reached"):
                    self._reached.append(trial.last_step or 0)
                for progress, value in trial.intermediate_values.items():
                    if not math.isnan(value):
                        self._costs[progress].append(past.sign * value)
        self._seen = len(past.ended)


def _costs(trials: Sequence[FrozenTrial], progress: int, sign: float) -> Costs:
    """Returns the costs of trials at a point of progress, NaN where they did not get there."""
    return np.array([sign * t.intermediate_values.get(progress, math.nan) for t in trials])


def _least_cost(lane: FrozenTrial, sign: float) -> float:
    """Returns the cost of a lane's best evaluation so far."""
    return min((sign * value for value in lane.intermediate_values.values()), default=math.inf)


def _medians_of_others(past: Costs, lanes: Costs) -> Costs:
    """Returns for each lane the median of past and other lanes; infinite if there are none."""
    if len(past) + len(lanes) == 1:
        return np.array([math.inf])
    return np.array(
        [np.median(np.concatenate([past, np.delete(lanes, i)])) for i in range(len(lanes))]
    )


def _places(costs: Costs, optimizers: npt.NDArray[np.str_], through: Mapping[str, int]) -> Costs:
    """Returns, for each lane, the trials of its optimizer that are complete or are better lanes."""
    return np.array(
        [
            through.get(name, 0) + (costs[optimizers == name] < cost).sum()
            for name, cost in zip(optimizers.tolist(), costs, strict=True)
        ]
    )
