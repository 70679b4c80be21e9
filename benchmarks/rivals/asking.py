"""Runs a search of any library over the replay: it asks for trials, and is told their losses."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import torch

from benchmarks.search.replay import Search, Searching
from benchmarks.search.spaces import EVALUATIONS
from tuner.domain.catalog.dimensions import Choice, Dimension, Fixed, Float, Value
from tuner.domain.space import walk
from tuner.domain.spec import StudySpec

Searched = Choice | Float
"""The axes that the bench searches."""

_UNKNOWN = 1e3
"""The loss of a trial that diverges before any other was told."""

_ASKED = 4_000
"""Questions after which a search is over that asks for what it has been told."""


class Rival(Protocol):
    """Holds a search of another library, one question and one answer at a time."""

    def ask(self) -> tuple[Mapping[str, Value], int]:
        """Returns the values of axes, and the evaluations up to which to train with them.

        Values of axes that the configuration does not have are passed over.
        """
        ...

    def tell(self, loss: float) -> None:
        """Takes the loss at the evaluation that was asked for last."""
        ...


def searched_axes(spec: StudySpec) -> dict[str, Searched]:
    """Returns the axes of a space that a library may choose on, by name.

    Args:
        spec: A resolved spec.

    Raises:
        TypeError: If an axis is of whole numbers, which no adapter knows.
    """
    found: dict[str, Searched] = {}
    for name, axis in spec.axes().items():
        if isinstance(axis, Choice | Float):
            found[name] = axis
        elif not isinstance(axis, Fixed):
            raise TypeError(f"{name} is of whole numbers, which the rivals are not asked for")
    return found


def condition_of(name: str, axes: Mapping[str, Dimension]) -> tuple[str, Value] | None:
    """Returns the axis that decides whether a configuration has another, and the value it needs.

    >>> condition_of("adam.lr", {"adam.lr": Fixed(value=1.0)})
    ('optimizer', 'adam')

    Args:
        name: The name of the axis in question.
        axes: All axes.

    Returns:
        The name and the value, or None for an axis that every configuration has.
    """
    row, _, key = name.partition(".")
    if not key:
        return None
    switch = f"{row}.use_{key}"
    if switch in axes:
        return switch, True
    schedules = getattr(axes.get("schedule"), "choices", ())
    return ("schedule" if row in schedules else "optimizer"), row


def search_by(
    start: Callable[[], Rival],
    spec: StudySpec,
    seed: int,
    *,
    enough: float = -math.inf,
    evaluations: int = 400,
) -> Searching:
    """Searches as a library wants it, which trains a configuration on from where it stands.

    A trial that diverges is told to be as bad as the worst so far.

    Args:
        start: Starts the library's search.
        spec: The space and the length of trials.
        seed: The seed of the global generators, which some libraries draw from.
        enough: The loss of a complete trial at which the search is over.
        evaluations: The training after which no further trial starts, in evaluations.
    """
    search, curves, reached = Search(), dict[tuple[object, ...], list[float]](), {}
    dice, worst = _Dice(seed), -math.inf
    with dice:
        rival = start()
    for _ in range(_ASKED):
        with dice:
            values, goal = rival.ask()
        params = walk(spec, lambda name, _: values[name])  # noqa: B023 - called at once
        key = tuple(params.items())
        if key not in curves:
            [curve] = yield [params]
            curves[key] = [value for value in curve if math.isfinite(value)]
            reached[key] = 0
        lasts, stood = len(curves[key]), reached[key]
        # The evaluation that finds a trial diverged is trained too, once.
        reached[key] = max(stood, min(goal, lasts + 1))
        search.evaluations += reached[key] - stood
        if stood < EVALUATIONS == reached[key] == lasts:
            search.end(params, curves[key][-1])
        if goal <= lasts:
            loss = curves[key][goal - 1]
            worst = max(worst, loss)
        else:
            loss = worst if math.isfinite(worst) else _UNKNOWN
        with dice:
            rival.tell(loss)
        if search.evaluations >= evaluations or search.best_by(math.inf) <= enough:
            break
    return search


_States = tuple[tuple[Any, ...], Any, torch.Tensor]


class _Dice:
    """Gives a search global generators of its own while it is asked: those of many run in turn."""

    def __init__(self, seed: int) -> None:
        self._own: _States = (
            random.Random(seed).getstate(),  # noqa: S311 - no secret
            np.random.RandomState(seed).get_state(),  # what libraries draw from
            torch.Generator().manual_seed(seed).get_state(),
        )
        self._others = self._own

    def __enter__(self) -> None:
        self._others = _read_generators()
        _set_generators(self._own)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._own = _read_generators()
        _set_generators(self._others)


def _read_generators() -> _States:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _set_generators(states: _States) -> None:
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
