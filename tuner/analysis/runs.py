"""The runs of a confirmation: which finalist trains with which fresh seed, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tuner.domain.confirmation import CONFIRMS, LEAST_SEEDS, REPEAT, Confirmation
from tuner.domain.objective import UNREACHED
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Outcome, TrialRecord

FIRST_SEEDS = 3
"""Seeds that every finalist is given before any is dropped."""


class Run(NamedTuple):
    """A run of a finalist.

    Attributes:
        trial: The number of the trial that the finalist was found by.
        repeat: Which of the fresh seeds it trains with, from 0.
    """

    trial: int
    repeat: int


Values = Mapping[Run, float | None]
"""The values of the runs that are over, None where one has diverged or failed."""


def read_values(spec: StudySpec, records: Iterable[TrialRecord]) -> dict[Run, float | None]:
    """Returns the values of the runs that are over; of a run that ran again, the first.

    Args:
        spec: The spec of the study that confirms.
        records: Its trials.
    """
    short = UNREACHED if spec.study.target is not None else float("inf")
    found: dict[Run, float | None] = {}
    for record in sorted(records, key=lambda record: record.number):
        trial, repeat = (record.attributes.get(name) for name in (CONFIRMS, REPEAT))
        if not record.outcome.is_over or type(trial) is not int or type(repeat) is not int:
            continue
        value = record.value if record.outcome is Outcome.COMPLETE else None
        found.setdefault(Run(trial, repeat), None if value is None or value >= short else value)
    return found


def find_runs(
    confirmation: Confirmation, spec: StudySpec, records: Iterable[TrialRecord]
) -> list[Run]:
    """Returns the runs that may start by now, those that have started too, in their order.

    They come in rounds: a round follows from the values of those before it, once all of these are
    known. So whoever knows more lists the same runs first.

    Args:
        confirmation: The finalists.
        spec: The spec of the study that confirms.
        records: Its trials.
    """
    return _list_rounds(confirmation, read_values(spec, records))[0]


def is_settled(confirmation: Confirmation, spec: StudySpec, records: Iterable[TrialRecord]) -> bool:
    """Tells whether all runs that are needed are over."""
    return _list_rounds(confirmation, read_values(spec, records))[1]


def _list_rounds(confirmation: Confirmation, values: Values) -> tuple[list[Run], bool]:
    """Returns the runs of all rounds that may start, and whether no further one is needed."""
    going = [finalist.trial for finalist in confirmation.finalists]
    runs = [Run(trial, repeat) for repeat in range(FIRST_SEEDS) for trial in going]
    for repeat in range(FIRST_SEEDS, confirmation.seeds):
        if any(run not in values for run in runs):
            return runs, False
        going = _keep(confirmation, values, repeat)
        going = going[: confirmation.runs - len(runs)]
        if not going:
            break
        runs += [Run(trial, repeat) for trial in going]
    return runs, all(run in values for run in runs)


def _keep(confirmation: Confirmation, values: Values, repeat: int) -> list[int]:
    """Returns the finalists that are given one more seed."""
    return [f.trial for f in confirmation.finalists if repeat < LEAST_SEEDS]
