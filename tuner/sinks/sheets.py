"""The sheets that sinks get of a study and its trials: settings, tags, curves, endings."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from tuner.domain.catalog.dimensions import Value
from tuner.domain.confirmation import TEST
from tuner.domain.objective import tell_aim
from tuner.domain.spec import StudySpec
from tuner.domain.trials import RERUN_OF, Decoder, Outcome, TrialRecord

VALUE = "trial/value"
"""The name under which the value that a trial is ranked by is told, beside its metrics."""


class Point(NamedTuple):
    """A point of a curve of a trial.

    Attributes:
        step: The optimizer steps taken, from 1.
        name: The name of the number, such as ``train_loss``.
        value: The number, finite.
    """

    step: int
    name: str
    value: float


@dataclass(frozen=True)
class StudySheet:
    """A study as it is told.

    Attributes:
        name: Its name.
        uuid: Its identity, 32 hexadecimal digits.
        tags: Its workload, metric and the like, by name.
    """

    name: str
    uuid: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class TrialSheet:
    """A trial as it is told.

    Attributes:
        number: Its number.
        settings: Its optimizer, schedule and all hyperparameters in torch's form, by name.
        tags: Where it comes from, by name.
        started_at: Its start, in seconds since 1970.
    """

    number: int
    settings: Mapping[str, Value]
    tags: Mapping[str, str]
    started_at: float


@dataclass(frozen=True)
class Ending:
    """The end of a trial as it is told.

    Attributes:
        outcome: How it ended.
        value: The number that ranks it, None if it has none.
        metrics: Its metrics over test data, by name; empty where there are none.
        error: The first line of its exception, empty unless it failed.
        at: Its end, in seconds since 1970.
    """

    outcome: Outcome
    value: float | None
    at: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    error: str = ""


def describe_study(name: str, uuid: str, spec: StudySpec) -> StudySheet:
    """Returns a study as it is told.

    Args:
        name: Its name.
        uuid: Its identity.
        spec: Its resolved spec.
    """
    tags = {
        "tuner.study": name,
        "tuner.workload": spec.study.workload,
        "tuner.metric": spec.study.metric,
        "tuner.aim": tell_aim(spec.study),
        "tuner.direction": spec.study.ranking,
        "tuner.sampler": spec.search.sampler,
        "tuner.pruner": spec.search.pruner,
        "tuner.seed": str(spec.search.seed),
    }
    if spec.confirmation is not None:
        tags["tuner.confirms"] = spec.confirmation.study
    return StudySheet(name, uuid, tags)


def describe_trial(decoder: Decoder, record: TrialRecord) -> TrialSheet:
    """Returns a trial as it is told.

    Args:
        decoder: The decoder of its study.
        record: The trial.
    """
    config = decoder.decode(record.proposal)
    tags = {"tuner.trial": str(record.number)}
    if record.proposal.preset is not None:
        tags["tuner.origin"] = record.proposal.preset
    if RERUN_OF in record.attributes:
        tags["tuner.rerun_of"] = str(record.attributes[RERUN_OF])
    names = {"optimizer": config.optimizer, "schedule": config.schedule}
    return TrialSheet(record.number, names | config.to_json(), tags, _seconds(record.started_at))


def describe_ending(record: TrialRecord) -> Ending | None:
    """Returns the end of a trial as it is told; None of one that is not over."""
    if not record.outcome.is_over:
        return None
    tested = record.attributes.get(TEST)
    metrics = {
        f"test/{name}": float(value)
        for name, value in (tested.items() if isinstance(tested, Mapping) else ())
        if isinstance(value, int | float) and math.isfinite(value)
    }
    lines = str(record.attributes.get("error", "")).strip().splitlines()
    return Ending(
        record.outcome,
        record.value,
        _seconds(record.finished_at),
        metrics,
        lines[0] if lines else "",
    )


def time_of(point: Point, trial: TrialSheet, ending: Ending | None, last_step: int) -> float:
    """Returns the time that a point is told with, in seconds since 1970.

    The database keeps no times of points. One of a trial in training is as new as it is sent; those
    of a trial that is over lie evenly between its start and its end.

    Args:
        point: The point.
        trial: Its trial.
        ending: The end of that, None while it trains.
        last_step: The last step that the trial has logged, at least 1.
    """
    if ending is None:
        return time.time()
    return trial.started_at + (ending.at - trial.started_at) * min(1.0, point.step / last_step)


def _seconds(moment: datetime | None) -> float:
    return time.time() if moment is None else moment.replace(tzinfo=UTC).timestamp()
