"""Lengths of complete trials: only those that trained equally long are ranked together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from tuner.domain.trials import Outcome, TrialRecord

FULL = Fraction(1)
"""The length of a full trial; others are parts of it, or more than it."""


RECORDED = ("steps", "total_steps", "stopped_early", "reached", "last_cost")
"""The attributes of a trial that tell its length; without ``total_steps`` it is full."""


def length_of(attributes: Mapping[str, Any]) -> Fraction:
    """Returns the steps of a complete trial as a fraction of those of a full one.

    A trial also counts as full if its loop called ``run.stop``, if it reached the study's target,
    or if its last step cost more steps than were left, as with L-BFGS.

    Args:
        attributes: The trial's recorded attributes.
    """
    steps, total = attributes.get("steps"), attributes.get("total_steps")
    if not isinstance(steps, int) or not isinstance(total, int) or total < 1:
        return FULL
    if "stopped_early" in attributes or "reached" in attributes:
        return FULL
    last = int(attributes.get("last_cost", 1))
    return FULL if total <= steps < total + last else Fraction(steps, total)


def share_trained(attributes: Mapping[str, Any]) -> float:
    """Returns the steps that a trial has taken as a part of those of a full one.

    It is 1 where its loop has not said how many a full trial has, and 0 before its first step.

    Args:
        attributes: The trial's recorded attributes, however it ended.

    >>> share_trained({"steps": 90, "total_steps": 360}), share_trained({"steps": 360})
    (0.25, 1.0)
    """
    steps, total = attributes.get("steps"), attributes.get("total_steps")
    if not isinstance(steps, int) or steps < 1:
        return 0.0
    return steps / total if isinstance(total, int) and total > 0 else 1.0


def ranked_length(lengths: Mapping[Fraction, int]) -> Fraction:
    """Returns the length whose trials are ranked: a full trial's, or else the most common one.

    Args:
        lengths: The number of complete trials of each length.
    """
    if lengths.get(FULL) or not any(lengths.values()):
        return FULL
    return max(lengths, key=lambda length: (lengths[length], length))


def split_by_length(
    records: Iterable[TrialRecord],
) -> tuple[list[TrialRecord], list[TrialRecord]]:
    """Returns the complete trials that are ranked, and those of other lengths.

    Args:
        records: All trials of a study.
    """
    complete = [r for r in records if r.outcome is Outcome.COMPLETE and r.value is not None]
    lengths = [length_of(record.attributes) for record in complete]
    chosen = ranked_length(Counter(lengths))
    pairs = list(zip(complete, lengths, strict=True))
    ranked = [record for record, length in pairs if length == chosen]
    return ranked, [record for record, length in pairs if length != chosen]


def tell_length(attributes: Mapping[str, Any]) -> str:
    """Returns the length of a complete trial in words; an empty text if it is full.

    Args:
        attributes: The trial's recorded attributes.
    """
    steps = f"{attributes.get('steps')} of {attributes.get('total_steps')} steps"
    if "stopped_early" in attributes and "total_steps" in attributes:
        return f"its loop stopped after {steps}: {attributes['stopped_early']}"
    return "" if length_of(attributes) == FULL else f"trained {steps}"
