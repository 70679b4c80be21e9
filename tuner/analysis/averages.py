"""The gain of averaging: averaged trials beside their own last weights, and beside others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from tuner.domain.trials import Outcome, TrialRecord

LINE = "average_line"
"""The trial attribute that holds the metric on the line from last weights to their average."""


@dataclass(frozen=True)
class AverageSummary:
    """The results of the trials that one average was used in.

    Attributes:
        average: Its name, or ``none``.
        trials: Trials that started.
        complete: Trials trained to the end.
        compared: Complete trials whose last weights were measured beside their average.
        gained: Those of them whose average was better.
        best_value: Its best complete value, or None.
        best_trial: The trial that reached it, or None.
        last_value: The metric of that trial's last weights, or None.
        line: The metric from that trial's last weights (0) to their average (1), by place on the
            line; None where it was not finite.
    """

    average: str
    trials: int
    complete: int
    compared: int
    gained: int
    best_value: float | None
    best_trial: int | None
    last_value: float | None
    line: tuple[tuple[float, float | None], ...]


def summarize_average(
    average: str,
    records: Sequence[TrialRecord],
    rank: Callable[[float | None], float],
    apart: Collection[int] = (),
) -> AverageSummary:
    """Returns the results of an average's trials.

    Args:
        average: Its name.
        records: Its trials.
        rank: Maps a metric to a number that is smaller for a better one.
        apart: The numbers of complete trials whose length keeps them from being ranked.
    """
    complete = [r for r in records if r.outcome is Outcome.COMPLETE and r.value is not None]
    rivals = [record for record in complete if record.number not in apart]
    best = min(rivals, key=lambda r: (rank(r.value), r.number), default=None)
    lines = [line for record in complete if (line := line_of(record))]
    line = line_of(best) if best else ()
    return AverageSummary(
        average=average,
        trials=len(records),
        complete=len(complete),
        compared=len(lines),
        gained=sum(rank(line[-1][1]) < rank(line[0][1]) for line in lines),
        best_value=best.value if best else None,
        best_trial=best.number if best else None,
        last_value=line[0][1] if line else None,
        line=line,
    )


def line_of(record: TrialRecord) -> tuple[tuple[float, float | None], ...]:
    """Returns (place, metric) pairs from a trial's last weights (0) to their average (1)."""
    return tuple((weight, value) for weight, value in record.attributes.get(LINE, ()))
