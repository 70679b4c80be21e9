"""Heats: three seeds choose, among the best trials of each optimizer, the one that is compared.

A search picks an optimizer's best trial by one noisy value each, so it may pick a lucky one, or one
at the edge of diverging. A race between such trials would compare luck. So the three best of each
optimizer of a comparison run on three seeds first. These seeds choose, and so they do not count in
the race of those that are chosen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tuner.analysis.arms import Arm, costs_of, rank_arms
from tuner.domain.confirmation import HEAT_SEEDS, Confirmation
from tuner.domain.study_section import Direction


@dataclass(frozen=True)
class Heats:
    """The arms of a race, once the heats before it are over.

    Attributes:
        arms: The arms that race, with their values of the race; all arms without values before.
        first: Which seed the race begins with, from 0.
        spent: Runs that the heats took.
        all: All arms with all their values.
    """

    arms: tuple[Arm, ...]
    first: int
    spent: int
    all: tuple[Arm, ...]

    @property
    def ran(self) -> bool:
        """Whether there were heats, and they are over."""
        return self.first > 0


def run_heats(confirmation: Confirmation, direction: Direction, arms: Sequence[Arm]) -> Heats:
    """Returns the arms that race: the best of each optimizer, where a comparison has several.

    Args:
        confirmation: The finalists.
        direction: Which values are better.
        arms: An arm for each finalist, with the values of its runs.
    """
    rivals: dict[object, list[Arm]] = defaultdict(list)
    for finalist, arm in zip(confirmation.finalists, arms, strict=True):
        rivals[finalist.params["optimizer"]].append(arm)
    if not confirmation.compares or len(rivals) == len(arms):
        return Heats(tuple(arms), 0, 0, tuple(arms))
    if any(len(arm.values) < HEAT_SEEDS for arm in arms):
        return Heats(tuple(replace(arm, values=()) for arm in arms), 0, 0, tuple(arms))
    chosen = [_choose(own, direction) for own in rivals.values()]
    racing = tuple(replace(arm, values=arm.values[HEAT_SEEDS:]) for arm in chosen)
    return Heats(racing, HEAT_SEEDS, HEAT_SEEDS * len(arms), tuple(arms))


def _choose(arms: Sequence[Arm], direction: Direction) -> Arm:
    """Returns the arm that diverged least often in the heats, and has the best mean of those."""
    costs = costs_of([replace(arm, values=arm.values[:HEAT_SEEDS]) for arm in arms], direction)
    return arms[rank_arms(costs)[0][2]]
