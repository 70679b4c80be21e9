"""Trials as rows: on a terminal, as JSON, as CSV, and as Parquet where pandas is installed."""

from __future__ import annotations

import csv
import importlib
import io
import math
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

from tuner.domain.catalog.dimensions import format_value
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.names import suggest
from tuner.domain.objective import tell_objective, tell_value
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Decoder, TrialRecord
from tuner.errors import NotFoundError, SpecError
from tuner.report.tables import TextTable, duration, number

_NESTED = ("params", "metrics")
"""The keys of a described trial that hold several values, each a column such as ``params.lr``."""

SORTABLE = ("trial", "outcome", "value", "optimizer", "schedule", "lr", "steps", "seconds")
"""The columns that trials of any study can be sorted by; by value, the best come first."""


def describe_trials(spec: StudySpec, records: Iterable[TrialRecord]) -> list[dict[str, Any]]:
    """Returns trials as plain values: all their settings and metrics, times, and how they ended.

    Args:
        spec: The study's resolved spec.
        records: Trials of it.
    """
    decoder = Decoder(spec)
    return [_describe(decoder, record) for record in records]


def _describe(decoder: Decoder, record: TrialRecord) -> dict[str, Any]:
    attributes, config = record.attributes, decoder.decode(record.proposal)
    began, ended = record.started_at, record.finished_at
    return {
        "trial": record.number,
        "outcome": record.outcome.value,
        "value": record.value,
        "optimizer": record.optimizer,
        "schedule": record.schedule,
        "preset": record.proposal.preset,
        "lr": config.optimizer_values.get(OPTIMIZERS[config.optimizer].rate),
        "params": config.to_json(),
        "metrics": attributes.get("metrics", {}),
        "steps": attributes.get("steps"),
        "total_steps": attributes.get("total_steps"),
        "started_at": began and f"{began.isoformat()}Z",
        "finished_at": ended and f"{ended.isoformat()}Z",
        "seconds": (ended - began).total_seconds() if began and ended else None,
        "training_s": attributes.get("train_s"),
        "evaluation_s": attributes.get("eval_s"),
        "error": attributes.get("error"),
        "error_at": attributes.get("error_at"),
    }


def choose_trials(
    trials: Iterable[dict[str, Any]],
    *,
    optimizers: Collection[str] = (),
    schedules: Collection[str] = (),
    outcomes: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Returns the trials that have one of the names of each kind that is given.

    Args:
        trials: Trials, as :func:`describe_trials` returns them.
        optimizers: Names of optimizers, none for all.
        schedules: Names of schedules, none for all.
        outcomes: How trials stand, such as ``failed``; none for all.
    """
    wanted = {"optimizer": optimizers, "schedule": schedules, "outcome": outcomes}
    return [
        trial
        for trial in trials
        if all(not names or trial[key] in names for key, names in wanted.items())
    ]


def sort_trials(
    spec: StudySpec, trials: Iterable[dict[str, Any]], key: str, *, backwards: bool = False
) -> list[dict[str, Any]]:
    """Returns trials in order; those without the value come last either way.

    Args:
        spec: The study's resolved spec, which says which values are better.
        trials: Trials, as :func:`describe_trials` returns them.
        key: One of :data:`SORTABLE`, or the name of a metric.
        backwards: Whether to turn the order round.

    Raises:
        NotFoundError: If it is neither.
    """
    trials = list(trials)
    if key not in SORTABLE:
        check_metrics(trials, [key], "--sort", others=SORTABLE)
    values = {id(trial): _value_of(trial, key) for trial in trials}
    is_ranking = key in ("value", spec.study.metric)
    direction = spec.study.ranking if key == "value" else spec.study.direction
    falls = (is_ranking and direction == "maximize") != backwards
    known = [trial for trial in trials if values[id(trial)] is not None]
    known.sort(key=lambda trial: values[id(trial)], reverse=falls)
    return [*known, *(trial for trial in trials if values[id(trial)] is None)]


def _value_of(trial: dict[str, Any], key: str) -> Any:
    return trial[key] if key in SORTABLE else trial["metrics"].get(key)


def check_metrics(
    trials: Iterable[dict[str, Any]],
    names: Iterable[str],
    option: str,
    others: Sequence[str] = (),
) -> None:
    """Checks that trials have metrics.

    Args:
        trials: Trials, as :func:`describe_trials` returns them.
        names: The metrics' names.
        option: The option that names them, for the message.
        others: What else it may name.

    Raises:
        NotFoundError: If no trial has one of them, with the nearest name that there is.
    """
    known = dict.fromkeys(name for trial in trials for name in trial["metrics"])
    for name in names:
        if name not in known:
            raise NotFoundError(
                f"{option} {name}: no trial has a metric of this name: "
                f"{suggest(name, [*others, *known])}"
            )


def trial_table(
    spec: StudySpec, trials: Sequence[dict[str, Any]], metrics: Sequence[str] = ()
) -> TextTable:
    """Returns trials as a table for a terminal, what matters most first.

    Args:
        spec: The study's resolved spec.
        trials: Trials, as :func:`describe_trials` returns them.
        metrics: Further metrics to show, each in a column behind the value.
    """
    shown = [name for name in dict.fromkeys(metrics) if name != spec.study.metric]
    return TextTable(
        f"Trials of {spec.study.name}",
        (
            *("trial", "optimizer", "outcome", tell_objective(spec.study), *shown),
            *("lr", "schedule", "steps", "took"),
        ),
        tuple(
            (
                str(trial["trial"]),
                trial["optimizer"],
                trial["outcome"],
                tell_value(spec.study, trial["value"]),
                *(number(trial["metrics"].get(name)) for name in shown),
                _tell_rate(trial["lr"]),
                trial["schedule"],
                "–" if trial["steps"] is None else str(trial["steps"]),
                "–" if trial["seconds"] is None else duration(trial["seconds"]),
            )
            for trial in trials
        ),
    )


def _tell_rate(rate: Any) -> str:
    return number(rate) if isinstance(rate, float) and math.isfinite(rate) else "–"


def to_rows(trials: Sequence[dict[str, Any]]) -> tuple[list[str], list[dict[str, Any]]]:
    """Returns trials as flat rows, each value of a setting or metric in a column of its own.

    Args:
        trials: Trials, as :func:`describe_trials` returns them.

    Returns:
        The names of the columns, and for each trial its values by column.
    """
    rows = [
        {name: value for name, value in trial.items() if name not in _NESTED}
        | {f"{kind}.{name}": value for kind in _NESTED for name, value in trial[kind].items()}
        for trial in trials
    ]
    names = dict.fromkeys(name for row in rows for name in row)
    return sorted(names, key=lambda name: "." in name), rows


def to_csv(trials: Sequence[dict[str, Any]]) -> str:
    """Returns trials as CSV with a line of heads; a value that a trial lacks is empty.

    Args:
        trials: Trials, as :func:`describe_trials` returns them.
    """
    columns, rows = to_rows(trials)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns or [*_HEADS], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return text.getvalue()


_HEADS = ("trial", "outcome", "value", "optimizer", "schedule")


def _cell(value: Any) -> Any:
    return format_value(value) if isinstance(value, bool) else value


_MOMENTS = ("started_at", "finished_at")
"""The columns that hold times."""


def _with_moments(trial: dict[str, Any]) -> dict[str, Any]:
    """Returns a trial whose times are no texts."""
    times = {name: datetime.fromisoformat(trial[name]) for name in _MOMENTS if trial.get(name)}
    return trial | times


def to_parquet(trials: Sequence[dict[str, Any]]) -> bytes:
    """Returns trials as a Parquet file, which pandas writes.

    Args:
        trials: Trials, as :func:`describe_trials` returns them.

    Raises:
        SpecError: If pandas, or what it writes Parquet with, is not installed.
    """
    columns, rows = to_rows([_with_moments(trial) for trial in trials])
    try:
        frame = importlib.import_module("pandas").DataFrame(rows, columns=columns)
        content: bytes = frame.to_parquet(index=False)
    except ImportError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise SpecError(
            f"--format parquet: {reason}. Install it: pip install pandas pyarrow; or take "
            "--format csv, which needs neither."
        ) from None
    return content
