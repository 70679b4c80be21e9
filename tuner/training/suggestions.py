"""Hyperparameters of your own training loop, suggested while it trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import ValidationError

from tuner.domain.catalog.dimensions import Choice, Dimension, Float, Int, Value
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.names import LONGEST_NAME
from tuner.domain.samplers import check_own
from tuner.domain.spec import StudySpec
from tuner.errors import WorkloadError
from tuner.training.reporting import Reporter

_EXACT = 2**53
"""Whole numbers up to this come back from the database, which keeps them as floats."""


class Suggestions:
    """Suggests values for a loop's own hyperparameters, each once a trial.

    NumPy's numbers are taken as Python's. A value that the database could not return as it was
    given is refused.

    Args:
        spec: The study, resolved.
        own: The values already drawn for the trial, by name.
        reporter: The worker, or a test, that draws the values.

    Attributes:
        own: Every value drawn so far, by name.
    """

    def __init__(self, spec: StudySpec, own: Mapping[str, Value], reporter: Reporter) -> None:
        self.own: dict[str, Value] = dict(own)
        self._axes: dict[str, Dimension] = {}
        self._sampler = spec.search.sampler
        self._searched = spec.space.optimizers
        self._source = reporter

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Suggests a float; see :meth:`tuner.Run.suggest_float`."""
        ends = [_to_float(name, end) for end in (low, high)]
        axis = _build(name, lambda: Float(low=ends[0], high=ends[1], log=log))
        return float(self._suggest(name, axis))

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """Suggests a whole number; see :meth:`tuner.Run.suggest_int`."""
        ends = [_to_int(name, end) for end in (low, high)]
        axis = _build(name, lambda: Int(low=ends[0], high=ends[1], log=log))
        return int(self._suggest(name, axis))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Suggests one of several choices; see :meth:`tuner.Run.suggest_categorical`."""
        if isinstance(choices, str) or not isinstance(choices, Sequence | np.ndarray):
            raise _refusal(name, f"{choices!r} is no list of choices")
        options = tuple(_to_option(name, choice) for choice in choices)
        if not options:
            raise _refusal(name, "the list of choices is empty: offer at least one")
        for index, option in enumerate(options):
            if option in options[:index]:
                twin = options[options.index(option)]
                raise _refusal(
                    name, f"the choices {twin!r} and {option!r} are equal: leave one out"
                )
        return self._suggest(name, _build(name, lambda: Choice(choices=options)))

    def _suggest(self, name: str, axis: Dimension) -> Value:
        names = self._names()
        plain = isinstance(name, str) and name.isidentifier() and len(name) <= LONGEST_NAME
        if not plain or name in names:
            raise WorkloadError(
                f"run.suggest was given the name {str(name)[:40]!r}: use a plain word, and none of "
                f"{', '.join(sorted(names))}."
            )
        before = self._axes.setdefault(name, axis)
        if before != axis:
            raise _refusal(
                name,
                f"the trial has asked for it in {before.describe()} and now asks in "
                f"{axis.describe()}: ask alike, or give the second one another name",
            )
        if name not in self.own:
            check_own(self._sampler, name)
            self.own[name] = self._source.suggest(name, axis)
        return self.own[name]

    def _names(self) -> set[str]:
        """Returns the names that reports show of every trial."""
        rows = [OPTIMIZERS[name] for name in self._searched]
        knobs = {knob.name for row in rows for knob in row.hyperparameters}
        return {"optimizer", "schedule", "average", "batch_size", "momentum_warmup", *knobs}


def _refusal(name: str, reason: str) -> WorkloadError:
    return WorkloadError(f"The hyperparameter {name!r} cannot be suggested: {reason}.")


def _build(name: str, axis: Callable[[], Dimension]) -> Dimension:
    try:
        return axis()
    except ValidationError as error:
        problem = error.errors()[0]
        raise _refusal(name, str(problem.get("ctx", {}).get("error", problem["msg"]))) from None


def _plain(value: Any) -> Any:
    """Returns a number of NumPy's as Python's, and all else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def _to_float(name: str, end: Any) -> float:
    end = _plain(end)
    if isinstance(end, bool) or not isinstance(end, int | float):
        raise _refusal(name, f"{end!r} is no number")
    try:
        number = float(end)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _refusal(name, f"{end!r} is no finite number")
    return number


def _to_int(name: str, end: Any) -> int:
    number = _plain(end)
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int):
        raise _refusal(name, f"{end!r} is no whole number; run.suggest_float takes any")
    if abs(number) > _EXACT:
        raise _refusal(
            name, f"{number} lies beyond 2**53, where whole numbers are not kept exactly"
        )
    return number


def _to_option(name: str, choice: Any) -> Value:
    option = _plain(choice)
    if option is not None and not isinstance(option, bool | int | float | str):
        raise _refusal(
            name,
            f"{choice!r} is neither a number, a text, a switch nor None, and would not come back "
            "from the database as it is: offer names, and look up by them what is meant",
        )
    if isinstance(option, float) and not math.isfinite(option):
        raise _refusal(name, f"{option!r} is no finite number")
    return option  # type: ignore[return-value]
