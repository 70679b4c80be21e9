"""The trials of a study as pruners compare them: each is taken in once, as it ends."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from optuna.trial import FrozenTrial, TrialState

from tuner.domain.objective import sign_of
from tuner.domain.study_section import Direction

_KEPT = (TrialState.COMPLETE, TrialState.PRUNED)


class Past:
    """The trials that others are compared with: those that run, are complete or are pruned.

    Args:
        direction: Whether a smaller or a larger metric is better.

    Attributes:
        sign: The factor, 1 or -1, that turns metrics into costs: the smaller, the better.
        ended: The trials that are complete or pruned, in the order they were taken in. It only
            grows, so that a pruner need only look at those that were added since it last did.
        running: The trials that run or are paused, by number.
        best: The complete trial with the best value, or None.
    """

    def __init__(self, direction: Direction) -> None:
        self.sign = sign_of(direction)
        self.ended: list[FrozenTrial] = []
        self.running: dict[int, FrozenTrial] = {}
        self.best: FrozenTrial | None = None
        self._ended_as: dict[int, list[FrozenTrial]] = defaultdict(list)

    def take_in(self, trial: FrozenTrial, *, is_rival: bool = True) -> None:
        """Takes in a trial as it is now.

        Args:
            trial: The trial.
            is_rival: Whether others are compared with it; a trial of an optimizer's own defaults is
                there to tell what the search has gained, whenever it comes.
        """
        if trial.state is TrialState.COMPLETE and self._is_better(trial, self.best):
            self.best = trial
        if not is_rival:
            return
        number = number_of(trial)
        if not trial.state.is_finished():
            self.running[number] = trial
            return
        self.running.pop(number, None)
        if trial.state in _KEPT:
            self.ended.append(trial)
            self._ended_as[number].append(trial)

    def _is_better(self, trial: FrozenTrial, other: FrozenTrial | None) -> bool:
        if trial.value is None or other is None or other.value is None:
            return trial.value is not None
        return self.sign * trial.value < self.sign * other.value

    def ended_as(self, trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
        """Returns the ended trials that have the numbers of some trials."""
        return [ended for trial in trials for ended in self._ended_as.get(number_of(trial), ())]


def number_of(trial: FrozenTrial) -> int:
    """Returns a mirrored trial's number in the database; in memory it may have another."""
    number: int = trial.user_attrs["number"]
    return number
