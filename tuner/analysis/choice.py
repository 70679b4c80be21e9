"""The choice among arms of which none is shown to be better, and how good the chosen one is."""

from __future__ import annotations

import itertools
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


def interval_of(costs: Floats, luck: float = 0.0) -> Interval | None:
    """Returns Student's interval of a mean, or None where its values do not tell one.

    They do not where one diverged, where there are fewer than two, or where all are the same.

    Args:
        costs: The values.
        luck: Standard errors that the interval reaches above the mean, if they are more than
            Student's.
    """
    if len(costs) < 2 or not np.isfinite(costs).all() or np.ptp(costs) == 0:
        return None
    mean, error = float(costs.mean()), float(costs.std(ddof=1)) / len(costs) ** 0.5
    student = _student(len(costs), _TAIL)
    return mean - error * student, mean + error * max(student, luck)


def interval_of_choice(costs: Floats, winner: int, tied: Sequence[int]) -> Interval | None:
    """Returns the interval of the winner's mean cost, which allows for its having been chosen.

    The best of several equal means had luck, so its true cost lies above it rather than below. The
    upper end is moved up until both tails together have 5%.

    Args:
        costs: All arms' costs, on the seeds that all of ``tied`` trained on.
        winner: The row of the winner.
        tied: The rows that it was chosen from.
    """
    sound = costs[[row for row in tied if np.isfinite(costs[row]).all()]]
    if len(sound) < 2 or costs.shape[1] < 2:
        return interval_of(costs[winner])
    flips = costs.shape[1] >= _FLIPPED_FROM
    return interval_of(costs[winner], _flip_for_luck(sound) if flips else _bound_luck(sound))


_FLIPPED_FROM = 7
"""Seeds from which on there are enough ways to flip signs to tell 5% of them."""

_FLIPS = 1024
"""Ways to flip signs that are tried, at most: all of up to ten seeds."""


def _flip_for_luck(costs: Floats) -> float:
    """Returns the standard errors by which the lowest of some equal means lies too low.

    All arms' deviations from their means are flipped in sign, seed by seed and the same for all
    arms, as if all were equal (the wild bootstrap: Wu 1986; Liu 1988). Each time the lowest mean is
    chosen, and measured in its own standard errors. So it counts how noisy each arm is, how heavy
    its tails are, and what seeds do to all alike.
    """
    seeds = costs.shape[1]
    off = (costs - costs.mean(axis=1, keepdims=True)) * (seeds / (seeds - 1)) ** 0.5
    means = _signs(seeds) @ off.T / seeds
    lowest = means.argmin(axis=1)
    chosen = means[np.arange(len(means)), lowest]
    squares = (off**2).sum(axis=1)[lowest]
    errors = np.sqrt(np.maximum(squares / seeds - chosen**2, 0.0) / (seeds - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        places = np.nan_to_num(chosen / errors, nan=0.0)
    above = float((places > _student(seeds, _TAIL)).mean())
    return -float(np.quantile(places, max(2 * _TAIL - above, _TAIL / 2)))


def _signs(seeds: int) -> Floats:
    """Returns the ways to flip signs, a row each: all of them, or some drawn by a fixed seed."""
    if 2**seeds <= _FLIPS:
        return np.array(list(itertools.product((1.0, -1.0), repeat=seeds)))
    return np.random.default_rng(0).choice((1.0, -1.0), size=(_FLIPS, seeds))


def _bound_luck(costs: Floats) -> float:
    """Returns the same by a bound, for few seeds.

    With m arms that were free to win, the upper end gets a tail of 0.05 (1 - 1/2m), shared out
    among them. Arms that seeds move alike share their luck: m counts only the part of their
    variance that they do not have in common.
    """
    whole = float(costs.var(axis=1, ddof=1).mean())
    own = costs - costs.mean(axis=0)
    apart = float(own.var(axis=1, ddof=1).sum()) / (len(costs) - 1)
    free = 1 + (len(costs) - 1) * (min(1.0, apart / whole) if whole > 0 else 0.0)
    return _student(costs.shape[1], 2 * _TAIL * (1 - 1 / (2 * free)) / free)


def _student(seeds: int, tail: float) -> float:
    """Returns the standard errors beyond which Student's t has a tail."""
    from scipy.special import stdtrit  # noqa: PLC0415 (see paired_tests)

    return float(stdtrit(seeds - 1, 1 - tail))


def _is_near(leader: Floats, other: Floats) -> bool:
    """Tells whether an arm's mean is within one standard error of the leader's."""
    both = np.isfinite(leader) & np.isfinite(other)
    behind = other[both] - leader[both]
    if len(behind) < 2:
        return bool((behind == 0).all())
    return bool(behind.mean() <= _WITHIN * behind.std(ddof=1) / len(behind) ** 0.5)
