"""The verdict on finalists that were trained again: who beats whom, by how much, and who wins."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tuner.analysis.arms import Arm, Floats, check_arms, costs_of, rank_arms
from tuner.analysis.choice import Interval, Reason, choose, interval_of, interval_of_choice
from tuner.analysis.comparisons import Comparison, compare_arms
from tuner.analysis.race import LEVEL, PLANNED, is_unfit, run_race
from tuner.domain.objective import sign_of
from tuner.domain.study_section import Direction

Standing = Literal["winner", "tied", "beaten", "diverged", "untried"]


@dataclass(frozen=True)
class ArmResult:
    """The results of one arm, and how it stands to the others.

    Attributes:
        trial: Its trial.
        seeds: On how many seeds it trained.
        mean: Its mean over those on which it did not diverge, or None.
        deviation: The standard deviation of those, or None of fewer than two.
        interval: Where its mean over all seeds lies, in 95% of such intervals; None where it
            diverged, or all its values are the same. That of the winner allows for its having
            been chosen.
        diverged: On how many seeds it diverged.
        standing: Whether it wins, is tied with the winner, is beaten, diverged too
            often, or has no seed that counts yet.
    """

    trial: int
    seeds: int
    mean: float | None
    deviation: float | None
    interval: Interval | None
    diverged: int
    standing: Standing


@dataclass(frozen=True)
class Verdict:
    """The winner of a confirmation, and the comparisons that tell how sure it is.

    Attributes:
        winner: The trial to use, or None where every arm diverged too often, or none has a value.
        tied: The trials that may be as good as the winner, with it, the best first; empty where it
            beats all others.
        reason: What made it the winner.
        comparisons: All pairs, those of the winner first.
        arms: All arms, the best first.
        seeds: On how many seeds the winner and all that are tied with it trained.
        planned: On how many they might have trained.
        level: The probability, at most, that ``beats`` is wrong anywhere.
    """

    winner: int | None
    tied: tuple[int, ...]
    reason: Reason
    comparisons: tuple[Comparison, ...]
    arms: tuple[ArmResult, ...]
    seeds: int
    planned: int
    level: float


def judge(
    arms: Sequence[Arm],
    direction: Direction,
    *,
    planned: int = PLANNED,
    protected: Collection[int] = (),
    compares: bool = False,
    level: float = LEVEL,
) -> Verdict:
    """Returns the verdict on arms that :func:`run_race` let train; it may be asked for at any time.

    Args:
        arms: The arms; values beyond what the race asked for do not count.
        direction: Which values are better.
        planned: As it was passed to the race.
        protected: As it was passed to the race.
        compares: As it was passed to the race.
        level: As it was passed to the race.
    """
    check_arms(arms, direction, planned, level)
    arms = sorted(arms, key=lambda arm: arm.trial)
    race = run_race(
        arms, direction, planned=planned, protected=protected, compares=compares, level=level
    )
    counted = dict.fromkeys(race.going, race.seeds)
    counted |= {drop.trial: drop.seeds for drop in race.dropped}
    seeds = [counted[arm.trial] for arm in arms]
    costs = costs_of(arms, direction)
    compared = compare_arms(arms, direction, seeds, planned, level)
    field = _Field(arms, costs, seeds)
    fit = field.fit()
    tied = [row for row in fit if not compared.beats[fit, row].any()] or fit
    winner, reason = choose(arms, costs[:, : race.seeds], tied)
    if reason == "beats" and compared.beats[winner].sum() < len(arms) - 1:
        reason = "diverged"  # the others are out, but not all of them beaten
    rows = sorted(
        range(len(arms)), key=lambda row: (row != winner, row not in tied, field.key(row))
    )
    trial = None if winner is None else arms[winner].trial
    named = tuple(arms[row].trial for row in rows if row in tied)
    return Verdict(
        winner=trial,
        tied=named if len(named) > 1 else (),
        reason=reason,
        comparisons=tuple(
            sorted(
                compared.pairs,
                key=lambda pair: (trial not in (pair.better, pair.worse), pair.p),
            )
        ),
        arms=tuple(field.describe(row, winner, tied, direction) for row in rows),
        seeds=race.seeds,
        planned=planned,
        level=level,
    )


class _Field:
    """All arms side by side, each with the seeds that count."""

    def __init__(self, arms: Sequence[Arm], costs: Floats, seeds: Sequence[int]) -> None:
        self._arms, self._costs, self._seeds = arms, costs, seeds
        self._rows = [row[:count] for row, count in zip(costs, seeds, strict=True)]
        self._lost = [int(np.isinf(row).sum()) for row in self._rows]

    def fit(self) -> list[int]:
        """Returns the rows of the arms that were not dropped and did not diverge too often."""
        most = max(self._seeds, default=0)
        both = enumerate(zip(self._seeds, self._lost, strict=True))
        return [row for row, (n, lost) in both if n == most > lost and not is_unfit(lost, n)]

    def key(self, row: int) -> tuple[int, int, float, int]:
        """Returns what arms are sorted by: first those that stayed longest, then the best."""
        lost, mean, _ = rank_arms(self._rows[row][None])[0]
        return -self._seeds[row], lost, mean, self._arms[row].trial

    def describe(
        self, row: int, winner: int | None, tied: list[int], direction: Direction
    ) -> ArmResult:
        """Returns what an arm reached."""
        costs = self._rows[row]
        sign = sign_of(direction)
        finite = costs[np.isfinite(costs)]
        interval = interval_of(costs)
        standing: Standing = "tied" if row in tied else "beaten"
        if row == winner:
            standing = "winner"
            interval = interval_of_choice(self._costs[:, : len(costs)], row, tied)
        elif not len(costs):
            standing = "untried"
        elif is_unfit(self._lost[row], len(costs)):
            standing = "diverged"
        if interval is not None and direction == "maximize":
            interval = -interval[1], -interval[0]
        return ArmResult(
            trial=self._arms[row].trial,
            seeds=len(costs),
            mean=sign * float(finite.mean()) if len(finite) else None,
            deviation=float(finite.std(ddof=1)) if len(finite) > 1 else None,
            interval=interval,
            diverged=self._lost[row],
            standing=standing,
        )
