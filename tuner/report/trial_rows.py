"""The table of all trials in a page, each row with what sorts and filters it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuner.domain.catalog.dimensions import format_value
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.printable import cut, printable
from tuner.domain.trials import Outcome, TrialConfig, TrialRecord
from tuner.report.charts.view import View
from tuner.report.tables import duration
from tuner.report.trial_words import tell_error

_LONGEST = 160


@dataclass(frozen=True)
class Cell:
    """A cell of the table.

    Attributes:
        text: What it shows.
        sort: The number that it is sorted by; None for its text.
    """

    text: str
    sort: float | None = None

    @property
    def key(self) -> str:
        """The number that it is sorted by, as an attribute has it."""
        return "" if self.sort is None else f"{self.sort:.6g}"


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        name: Its head.
        is_number: Whether its cells are numbers, which stand at the right.
    """

    name: str
    is_number: bool = False


@dataclass(frozen=True)
class TrialRow:
    """A trial's row.

    Attributes:
        number: The trial's number.
        outcome: How it stands.
        optimizer: Its optimizer.
        kind: The class of its optimizer's colour.
        symbol: The shape of its optimizer.
        best: Whether it is the best trial.
        cells: Its cells after the number and the optimizer.
    """

    number: int
    outcome: str
    optimizer: str
    kind: str
    symbol: str
    best: bool
    cells: tuple[Cell, ...]


def head(view: View) -> tuple[Column, ...]:
    """Returns the columns after the trial's number and its optimizer."""
    values = (view.objective, *map(printable, view.study.show))
    return (
        *(Column(name, is_number=True) for name in values),
        Column("outcome"),
        Column("lr", is_number=True),
        Column("schedule"),
        Column("other settings"),
        Column("steps", is_number=True),
        Column("time", is_number=True),
        Column("from"),
    )


def trial_rows(view: View) -> list[TrialRow]:
    """Returns the rows of the trials that the page lists, by number."""
    best = view.summary.best.record.number if view.summary.best else None
    return [
        TrialRow(
            record.number,
            record.outcome.value,
            printable(record.optimizer),
            view.palette.kind(record.optimizer),
            view.palette.symbol(record.optimizer),
            record.number == best,
            _cells(view, record, view.config(record)),
        )
        for record in view.listed
    ]


def _cells(view: View, record: TrialRecord, config: TrialConfig) -> tuple[Cell, ...]:
    rate = config.optimizer_values.get(OPTIMIZERS[config.optimizer].rate)
    number = float(rate) if isinstance(rate, int | float) else None
    value = view.value(record)
    steps, seconds = (_number(record.attributes, name) for name in ("steps", "train_s"))
    metrics = record.attributes.get("metrics", {})
    shown = (_number(metrics, name) for name in view.study.show)
    return (
        Cell(view.tell(record.value) if value is None else view.tell(value), value),
        *(Cell("–" if metric is None else f"{metric:.4g}", metric) for metric in shown),
        Cell(_outcome(record)),
        Cell("–" if number is None else f"{number:.3g}", number),
        Cell(printable(config.schedule)),
        Cell(cut(printable(_others(config)), _LONGEST)),
        Cell("–" if steps is None else f"{steps:,.0f}", steps),
        Cell("–" if seconds is None else duration(seconds), seconds),
        Cell(printable(record.proposal.preset or "search")),
    )


def _outcome(record: TrialRecord) -> str:
    error = tell_error(record)
    if record.outcome is Outcome.FAILED and error:
        return f"failed: {cut(printable(error), 60)}"
    step = record.attributes.get("diverged_step")
    if record.outcome is Outcome.DIVERGED and step is not None:
        return f"diverged at step {step}"
    return record.outcome.value


def _others(config: TrialConfig) -> str:
    rate = OPTIMIZERS[config.optimizer].rate
    values = {key: value for key, value in config.to_json().items() if key != rate}
    prefix = f"{config.schedule}."
    return ", ".join(f"{key.removeprefix(prefix)}={_short(value)}" for key, value in values.items())


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return format_value(value) if isinstance(value, bool | int | str) else str(value)


def _number(values: Mapping[str, Any], name: str) -> float | None:
    value = values.get(name)
    return float(value) if isinstance(value, int | float) else None
