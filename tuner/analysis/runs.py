"""The runs of a confirmation: which finalist trains with which fresh seed, and what came of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from tuner.analysis.arms import Arm
from tuner.analysis.heats import Heats, run_heats
from tuner.analysis.race import Race, run_race
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.schedules import SCHEDULES
from tuner.domain.confirmation import (
    CONFIRMS,
    HEAT_SEEDS,
    REPEAT,
    SPLIT_SEED,
    TEST,
    Confirmation,
    Finalist,
)
from tuner.domain.objective import is_missed
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Outcome, TrialRecord, default_proposal


class Run(NamedTuple):
    """A run of a finalist.

    Attributes:
        trial: The number of the trial that the finalist was found by.
        repeat: Which of the fresh seeds it trains with, from 0.
    """

    trial: int
    repeat: int


def name_runs(
    confirmation: Confirmation, spec: StudySpec, records: Iterable[TrialRecord]
) -> list[TrialRecord]:
    """Returns the runs, each with its finalist and seed: damage would have the race wait for ever.

    A run that does not say whose it is, is of the finalist with its values; one that does not say
    its seed had the first that no other of that finalist has, since they start in order.

    Args:
        confirmation: The finalists.
        spec: The spec of the study that confirms.
        records: Its trials.
    """
    axes = spec.axes()
    named = sorted(records, key=lambda record: record.number)
    runs = {(r.attributes.get(CONFIRMS), r.attributes.get(REPEAT)) for r in named}
    for place, record in enumerate(named):
        trial, repeat = (record.attributes.get(name) for name in (CONFIRMS, REPEAT))
        if type(trial) is not int:
            point = {key: v for key, v in record.proposal.params.items() if key in axes}
            alike = (f.trial for f in confirmation.finalists if f.params == point)
            trial = next(alike, None)
        if type(repeat) is not int:
            free = (k for k in range(HEAT_SEEDS + confirmation.seeds) if (trial, k) not in runs)
            repeat = next(free, None)
        runs.add((trial, repeat))
        noted = {**record.attributes, CONFIRMS: trial, REPEAT: repeat}
        named[place] = replace(record, attributes=noted)
    return named


def read_arms(confirmation: Confirmation, spec: StudySpec, records: Iterable[TrialRecord]) -> Heats:
    """Returns the finalists with the values of their runs, up to the first that is not over.

    A run that diverged, failed or did not reach the target has no value. Each costs one. Those of a
    comparison that have left in the heats do not race.

    Args:
        confirmation: The finalists.
        spec: The spec of the study that confirms.
        records: Its trials.
    """
    values = _read_values(spec, records)
    arms = [
        Arm(
            finalist.trial,
            tuple(_follow(values, finalist.trial)),
            cost=1.0,
            complexity=_count_hyperparameters(spec, finalist),
        )
        for finalist in confirmation.finalists
    ]
    return run_heats(confirmation, spec.study.ranking, arms)


def read_tests(records: Iterable[TrialRecord]) -> dict[Run, Mapping[str, float | None]]:
    """Returns the metrics over test data of the runs that are complete and have some, by name.

    Args:
        records: The trials of the study that confirms.
    """
    return {
        run: record.attributes[TEST]
        for run, record in find_counted(records).items()
        if record.outcome is Outcome.COMPLETE and record.attributes.get(TEST)
    }


def redraws_splits(records: Iterable[TrialRecord]) -> bool:
    """Tells whether every complete run split the data by its seed.

    Args:
        records: The trials of the study that confirms.
    """
    over = find_counted(records).values()
    complete = [record for record in over if record.outcome is Outcome.COMPLETE]
    return bool(complete) and all(SPLIT_SEED in record.attributes for record in complete)


def run_confirmation(confirmation: Confirmation, spec: StudySpec, heats: Heats) -> Race:
    """Returns how the race of the finalists stands.

    Args:
        confirmation: The finalists.
        spec: The spec of the study that confirms.
        heats: The finalists with their values.
    """
    return run_race(
        heats.arms,
        spec.study.ranking,
        planned=confirmation.seeds,
        protected=find_protected(confirmation, heats),
        budget=confirmation.runs - heats.spent,
        compares=confirmation.compares,
    )


def find_protected(confirmation: Confirmation, heats: Heats) -> tuple[int, ...]:
    """Returns the trials of the arms that are given five seeds at least.

    Args:
        confirmation: The finalists.
        heats: The finalists with their values.
    """
    protected = {finalist.trial for finalist in confirmation.finalists if finalist.protected}
    return tuple(arm.trial for arm in heats.arms if arm.trial in protected)


def list_runs(heats: Heats, race: Race) -> list[Run]:
    """Returns the runs that may start by now, those that have started too, in their order.

    They come seed by seed, so whoever knows more of the race lists the same runs first.

    Args:
        heats: The finalists with their values.
        race: How their race stands.
    """
    had = {drop.trial: drop.seeds for drop in race.dropped}
    first = [Run(arm.trial, repeat) for repeat in range(heats.first) for arm in heats.all]
    return first + [
        Run(arm.trial, heats.first + repeat)
        for repeat in range(race.until)
        for arm in heats.arms
        if repeat < had.get(arm.trial, race.until)
    ]


def _read_values(spec: StudySpec, records: Iterable[TrialRecord]) -> dict[Run, float | None]:
    """Returns the values of the runs that are over."""
    return {run: _value_of(spec, record) for run, record in find_counted(records).items()}


def find_failed(records: Iterable[TrialRecord]) -> dict[int, tuple[int, ...]]:
    """Returns the numbers of the runs that failed and have not run again, by finalist.

    Args:
        records: The trials of the study that confirms.
    """
    found: dict[int, tuple[int, ...]] = {}
    for run, record in find_counted(records).items():
        if record.outcome is Outcome.FAILED:
            found[run.trial] = (*found.get(run.trial, ()), record.number)
    return found


def count_over(records: Iterable[TrialRecord]) -> int:
    """Returns how many runs are over; one that ran again counts once.

    Args:
        records: The trials of the study that confirms.
    """
    return len(find_counted(records))


def find_racing(
    confirmation: Confirmation, spec: StudySpec, records: Iterable[TrialRecord]
) -> dict[str, list[TrialRecord]]:
    """Returns the runs that are over and count for the verdict, by optimizer.

    Those of the heats do not: these have chosen who races.

    Args:
        confirmation: The finalists.
        spec: The spec of the study that confirms.
        records: Its trials.
    """
    records = name_runs(confirmation, spec, records)
    heats = read_arms(confirmation, spec, records)
    racing = {arm.trial for arm in heats.arms}
    found: dict[str, list[TrialRecord]] = defaultdict(list)
    for run, record in find_counted(records).items():
        if run.trial in racing and run.repeat >= heats.first:
            found[record.optimizer].append(record)
    return found


def find_counted(records: Iterable[TrialRecord]) -> dict[Run, TrialRecord]:
    """Returns the trials that count as runs that are over.

    Of a run that ran again it is the first, or the first that did not fail: what failed has told
    nothing of the finalist.
    """
    found: dict[Run, TrialRecord] = {}
    for record in sorted(records, key=lambda record: record.number):
        trial, repeat = (record.attributes.get(name) for name in (CONFIRMS, REPEAT))
        if not record.outcome.is_over or type(trial) is not int or type(repeat) is not int:
            continue
        before = found.get(Run(trial, repeat))
        if before is None or before.outcome is Outcome.FAILED:
            found[Run(trial, repeat)] = record
    return found


def _value_of(spec: StudySpec, record: TrialRecord) -> float | None:
    if record.outcome is not Outcome.COMPLETE or record.value is None:
        return None
    return None if is_missed(spec.study, record.value) else record.value


def _follow(values: Mapping[Run, float | None], trial: int) -> Iterable[float | None]:
    repeat = 0
    while Run(trial, repeat) in values:
        yield values[Run(trial, repeat)]
        repeat += 1


def _count_hyperparameters(spec: StudySpec, finalist: Finalist) -> int:
    """Returns how many hyperparameters there are to set for a finalist: none for defaults."""
    name = str(finalist.params["optimizer"])
    if default_proposal(spec, name).params == finalist.params:
        return 0
    optimizer = OPTIMIZERS[name]
    schedule = SCHEDULES[str(finalist.params["schedule"])]
    return len(optimizer.hyperparameters) + len(schedule.hyperparameters)
