"""The choice among arms of which none is shown to be better, and how good the chosen one is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from tuner.analysis.arms import Arm, Floats, rank_arms

Interval = tuple[float, float]

Reason = Literal["only", "beats", "diverged", "simpler", "cheaper", "better", "first", "none"]
"""The reason for a choice: there is no other arm (``only``), it beats all others that stayed fit
(``beats``), it diverged less often, it is simpler, cheaper or has the better mean, or it came
first; or nothing did (``none``)."""

_WITHIN = 1.0
"""Standard errors of the difference to the leader within which an arm counts as equally good."""

_TAIL = 0.025
"""The probability that a mean lies beyond one end of its interval."""


def choose(arms: Sequence[Arm], costs: Floats, tied: Sequence[int]) -> tuple[int | None, Reason]:
    """Returns the row of the arm to use, and why.

    Those that diverged least often come first. Of these, the simplest and then the cheapest wins
    among all within one standard error of the best mean (the rule of Breiman et al. 1984): "not
    shown to be worse" alone would let a simple but much worse arm win where seeds are few.

    Args:
        arms: All arms.
        costs: Their costs, on the seeds that all of ``tied`` trained on.
        tied: The rows to choose from.
    """
    if not tied:
        return None, "none"
    if len(tied) == 1:
        return tied[0], "only" if len(arms) == 1 else "beats"
    ranked = [(lost, mean, tied[at]) for lost, mean, at in rank_arms(costs[list(tied)])]
    safe = [(mean, row) for lost, mean, row in ranked if lost == ranked[0][0]]
    leader = safe[0][1]
    near = [(mean, row) for mean, row in safe if _is_near(costs[leader], costs[row])]
    keys = {
        row: (arms[row].complexity, arms[row].cost, mean, arms[row].trial) for mean, row in near
    }
    first, *others = sorted(keys, key=lambda row: keys[row])
    if not others:
        # A worse arm may have been left out for its divergences, or for its mean.
        return first, "better" if len(safe) > 1 else "diverged"
    reasons: tuple[Reason, ...] = ("simpler", "cheaper", "better", "first")
    differs = [mine != theirs for mine, theirs in zip(keys[first], keys[others[0]], strict=True)]
    return first, reasons[differs.index(True)]


def interval_of(costs: Floats, upper: float = _TAIL) -> Interval | None:
    """Returns Student's interval of a mean, or None where its values do not tell one.

    They do not where one diverged, where there are fewer than two, or where all are the same.

    Args:
        costs: The values.
        upper: The probability that the mean lies above the interval.
    """
    from scipy.special import stdtrit  # noqa: PLC0415 (see paired_tests)

    if len(costs) < 2 or not np.isfinite(costs).all() or np.ptp(costs) == 0:
        return None
    mean, error = float(costs.mean()), float(costs.std(ddof=1)) / len(costs) ** 0.5
    below, above = (error * float(stdtrit(len(costs) - 1, 1 - tail)) for tail in (_TAIL, upper))
    return mean - below, mean + above


def interval_of_choice(costs: Floats, winner: int, tied: Sequence[int]) -> Interval | None:
    """Returns the interval of the winner's mean cost, which allows for its having been chosen.

    The best of m equal means had luck, so its true cost lies above it rather than below. With m
    arms that were free to win, the upper end gets a tail of 0.05 (1 - 1/2m), shared out among them;
    one arm alone gets Student's interval. Arms that seeds move alike share their luck: m counts
    only the part of their variance that they do not have in common.

    Args:
        costs: All arms' costs, on the seeds that all of ``tied`` trained on.
        winner: The row of the winner.
        tied: The rows that it was chosen from.
    """
    sound = costs[[row for row in tied if np.isfinite(costs[row]).all()]]
    if len(sound) < 2 or costs.shape[1] < 2:
        return interval_of(costs[winner])
    whole = float(sound.var(axis=1, ddof=1).mean())
    own = sound - sound.mean(axis=0)
    apart = float(own.var(axis=1, ddof=1).sum()) / (len(sound) - 1)
    free = 1 + (len(sound) - 1) * (min(1.0, apart / whole) if whole > 0 else 0.0)
    return interval_of(costs[winner], 2 * _TAIL * (1 - 1 / (2 * free)) / free)


def _is_near(leader: Floats, other: Floats) -> bool:
    """Tells whether an arm's mean is within one standard error of the leader's."""
    both = np.isfinite(leader) & np.isfinite(other)
    behind = other[both] - leader[both]
    if len(behind) < 2:
        return bool((behind == 0).all())
    return bool(behind.mean() <= _WITHIN * behind.std(ddof=1) / len(behind) ** 0.5)
