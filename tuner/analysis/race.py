"""A race: finalists train on one seed after the other, and those that are beaten drop out.

The race is replayed from the values alone, so that it needs no memory and survives any stop. Who
goes on never makes a claim wrong (see `looks.py`): these rules only decide what it costs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tuner.analysis.arms import Arm, Floats, check_arms, costs_of, rank_arms
from tuner.analysis.families import adjust, beats_of, follow
from tuner.analysis.looks import look_again, no_looks, shares_of
from tuner.domain.study_section import Direction

PLANNED = 10
"""Seeds that a race has at most, unless its caller plans others."""

LEVEL = 0.05
"""The probability, at most, that a race's claims hold a wrong one."""

ENOUGH = 5
"""Seeds that the best two and all protected arms get in any case."""


@dataclass(frozen=True)
class Drop:
    """An arm that left the race.

    Attributes:
        trial: Its trial.
        seeds: The seeds that it had.
        reason: Whether the leader beats it, or it diverged on half of its seeds.
    """

    trial: int
    seeds: int
    reason: Literal["beaten", "diverged"]


@dataclass(frozen=True)
class Race:
    """The state of a race: the seeds that arms train on next, or that it is over.

    Attributes:
        going: The trials of the arms that are still in the race, the best first.
        until: How many seeds each of them is to have next; those that it had, once it is over.
        seeds: How many seeds all of them have.
        dropped: The arms that left, in that order.
        end: Why the race is over: one arm is left (``settled``), all planned seeds are trained
            (``seeds``), or the next seed would cost too much (``cost``); None while it goes on.
    """

    going: tuple[int, ...]
    until: int
    seeds: int
    dropped: tuple[Drop, ...]
    end: Literal["settled", "seeds", "cost"] | None

    @property
    def settled(self) -> bool:
        """Tells whether nothing is left to train."""
        return self.end is not None


def run_race(
    arms: Sequence[Arm],
    direction: Direction,
    *,
    planned: int = PLANNED,
    protected: Collection[int] = (),
    budget: float | None = None,
    compares: bool = False,
    level: float = LEVEL,
) -> Race:
    """Returns which arms train on which seeds next, from the values that they have so far.

    All arms train on three seeds. From then on, after every seed, an arm drops out that is told
    apart from all that go on, or that diverged on half of its seeds. The race is over once the
    leader beats all others.

    Args:
        arms: The arms; values beyond what the race asked for do not count.
        direction: Which values are better.
        planned: The most seeds; the error is shared out for them beforehand.
        protected: Trials that get five seeds in any case, such as the usual choice.
        budget: What all seeds of all arms may cost together.
        compares: Whether the race goes on until all arms are told apart, and not the leader alone.
        level: The probability, at most, that a claim is wrong.
    """
    check_arms(arms, direction, planned, level)
    strangers = sorted(set(protected) - {arm.trial for arm in arms})
    if strangers:
        raise ValueError(f"trial {strangers[0]} is protected but no arm: pass it as an arm too")
    arms = sorted(arms, key=lambda arm: arm.trial)
    costs = costs_of(arms, direction)
    replay = _Replay(arms, costs, planned, frozenset(protected), compares, level)
    for look in shares_of(planned):
        if not arms or not replay.has(look):
            break
        replay.look(look)
        if len(replay.going) == 1 and look >= min(ENOUGH, planned):
            return replay.race("settled")
        if look == planned:
            return replay.race("seeds")
    if not arms:
        return replay.race("settled")
    if budget is not None and replay.cost_until(replay.next) > budget:
        return replay.race("cost")
    return replay.race(None)


class _Replay:
    """A race as far as its values go."""

    def __init__(
        self,
        arms: Sequence[Arm],
        costs: Floats,
        planned: int,
        protected: frozenset[int],
        compares: bool,
        level: float,
    ) -> None:
        self._arms, self._costs, self._level = arms, costs.copy(), level
        self._protected, self._enough = protected, min(ENOUGH, planned)
        self._compares = compares
        self._looks = no_looks(len(arms), planned)
        self._dropped: list[Drop] = []
        self.going = list(range(len(arms)))
        self._seeds = min((len(arm.values) for arm in arms), default=0)
        self.next = min(shares_of(planned))

    def has(self, look: int) -> bool:
        """Tells whether all arms that go on have their values of a look."""
        return all(len(self._arms[row].values) >= look for row in self.going)

    def look(self, seeds: int) -> None:
        """Looks at all arms that go on, and drops some."""
        self._looks = look_again(self._looks, self._costs, seeds)
        ranked = rank_arms(self._costs[self.going, :seeds])
        self.going = [self.going[place] for _, _, place in ranked]
        unfit = {self.going[at] for at, (lost, _, _) in enumerate(ranked) if is_unfit(lost, seeds)}
        leader = self.going[0]
        beats = self._beats()
        spared = self.going[:2] if seeds < self._enough else self.going[:1]
        out = [row for row in self.going[1:] if row in unfit and leader not in unfit]
        others = [row for row in self.going[1:] if row not in out]
        won = not self._compares and seeds >= self._enough and bool(beats[leader, others].all())
        apart = set(others) if won else self._find_apart(beats)
        for row in list(self.going):
            trial = self._arms[row].trial
            if row in spared or (seeds < self._enough and trial in self._protected):
                continue
            beaten = bool(beats[leader, row]) and row in apart
            if beaten or row in out:
                reason: Literal["beaten", "diverged"] = "beaten" if beaten else "diverged"
                self._dropped.append(Drop(trial, seeds, reason))
                self.going.remove(row)
                self._costs[row, seeds:] = np.nan
        self._seeds, self.next = seeds, seeds + 1

    def _find_apart(self, beats: NDArray[np.bool_]) -> set[int]:
        """Returns the arms that the leader beats and that are told apart from all that go on.

        Of a comparison they have to be told apart from each other, too.
        """
        told = beats | beats.T
        apart = {row for row in self.going if beats[self.going[0], row]}
        if self._compares:
            return {row for row in apart if told[row, [r for r in self.going if r != row]].all()}
        while left := {
            row for row in apart if not told[row, [r for r in self.going if r not in apart]].all()
        }:
            apart -= left
        return apart

    def cost_until(self, seeds: int) -> float:
        """Returns what the race has cost once all that go on have so many seeds."""
        costs = {arm.trial: arm.cost for arm in self._arms}
        left = sum(costs[drop.trial] * drop.seeds for drop in self._dropped)
        return left + seeds * sum(self._arms[row].cost for row in self.going)

    def race(self, end: Literal["settled", "seeds", "cost"] | None) -> Race:
        """Returns the race as it stands."""
        going = tuple(self._arms[row].trial for row in self.going)
        until = self._seeds if end else self.next
        return Race(going, until, self._seeds, tuple(self._dropped), end)

    def _beats(self) -> NDArray[np.bool_]:
        count = len(self._arms)
        adjusted, _ = adjust(self._looks.p, count)
        return follow(beats_of(self._looks, adjusted, count, self._level))


def is_unfit(diverged: int, seeds: int) -> bool:
    """Tells whether an arm diverged too often to be used: on half of its seeds, and twice.

    Args:
        diverged: How often it diverged.
        seeds: On how many seeds it trained.
    """
    return diverged >= 2 and 2 * diverged >= seeds
