"""Ranges that the best trials lie at the end of, and how far they may be widened."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from tuner.analysis.order import order_trials
from tuner.domain.catalog.dimensions import Choice, Fixed, Float, Int, place_of
from tuner.domain.catalog.hyperparameters import Bounds, Hyperparameter, name_in_torch
from tuner.domain.space import Branch, branches_of
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Outcome, TrialRecord

Side = Literal["low", "high"]

AxisPath = tuple[str, str, str]
"""Where an axis stands in a study file: table, row and key, such as ``optimizer``, ``adam`` and
``lr``; the table of a network's own is ``network.NAME``."""

ZONE = 0.05
"""The share of a range, at each end, in which a value counts as lying at its end."""

BEST = 3
"""The best trials of an optimizer that are looked at."""

AGREE = 2
"""How many of these must lie at the same end. One alone does so by chance in 10% of ranges; two of
three in 1.5%, if good values lie anywhere alike."""

LEADERS = 3
"""The optimizers whose best trials are looked at: the leader, and those it is compared with."""

ENOUGH = 5
"""Trials that an optimizer must have: the best three of fewer are not much better than the rest."""

_End = tuple[Branch, str, Float | Int, Side]

_STEP = 1 / 3
"""The part of its width by which a range is widened: a decade for the usual three."""

_LEAST = 0.01
"""The part of its width by which a range can be widened at least; by less, it is at its bound."""


@dataclass(frozen=True)
class Edge:
    """A range with the best trials of an optimizer at one end.

    Attributes:
        branch: The optimizer, schedule or average that has it.
        key: Its name there, such as ``lr``.
        axis: The range.
        side: The end.
        optimizer: The optimizer whose trials they are.
        trials: The numbers of those that lie there, of its :data:`BEST` best, the best first.
    """

    branch: Branch
    key: str
    axis: Float | Int
    side: Side
    optimizer: str
    trials: tuple[int, ...]

    @property
    def name(self) -> str:
        """The name of the parameter, such as ``adam.lr``."""
        return self.branch.param(self.key)

    @property
    def path(self) -> AxisPath:
        """Where the range stands in a study file."""
        network = self.branch.network
        table = self.branch.table if network is None else f"network.{network}"
        return table, self.branch.row, self.key

    @property
    def end(self) -> float:
        """The value at that end."""
        return self.axis.low if self.side == "low" else self.axis.high

    @property
    def in_torch(self) -> tuple[str, Side, float]:
        """Its name, side and end as people know them, whatever form is searched."""
        one = _hyperparameter_of(self)
        if one is None or not (one.complement and self.key == one.search_name):
            return self.name, self.side, self.end
        side: Side = "high" if self.side == "low" else "low"
        return name_in_torch(self.name), side, 1 - self.end


def edge_names(spec: StudySpec, record: TrialRecord) -> list[str]:
    """Returns the names of hyperparameters of a trial that lie at an end of their range."""
    return [branch.param(key) for branch, key, _, _ in _ends(spec, record)]


def find_edges(spec: StudySpec, records: Iterable[TrialRecord]) -> list[Edge]:
    """Returns the ranges that the best trials lie at the end of, and that can be widened there.

    These are the best trials of each leading optimizer: of the :data:`LEADERS` that have the best
    complete trials.

    Args:
        spec: The study.
        records: Its trials.

    Returns:
        One entry a range and end, those of the leader first.
    """
    ordered = [record for _, record in order_trials(spec, records)]
    counts = Counter(record.optimizer for record in ordered)
    complete = dict.fromkeys(r.optimizer for r in ordered if r.outcome is Outcome.COMPLETE)
    leaders = [name for name in complete if counts[name] >= ENOUGH][:LEADERS]
    found: dict[tuple[AxisPath, Side], Edge] = {}
    for optimizer in leaders:
        best = [record for record in ordered if record.optimizer == optimizer][:BEST]
        there: dict[tuple[AxisPath, Side], Edge] = {}
        for record in best:
            for branch, key, axis, side in _ends(spec, record):
                edge = Edge(branch, key, axis, side, optimizer, (record.number,))
                known = there.get((edge.path, side))
                trials = (*known.trials, record.number) if known else edge.trials
                there[edge.path, side] = replace(edge, trials=trials)
        for at, edge in there.items():
            if len(edge.trials) >= AGREE and widen(edge) is not None:
                found.setdefault(at, edge)
    return list(found.values())


def widen_all(edges: Iterable[Edge]) -> dict[AxisPath, Float | Int]:
    """Returns the ranges of edges, each widened at every end that one is about.

    Args:
        edges: Those of :func:`find_edges`.
    """
    wider: dict[AxisPath, Float | Int] = {}
    for edge in edges:
        axis, known = widen(edge), wider.get(edge.path, edge.axis)
        if axis is not None:
            ends = {"low": min(axis.low, known.low), "high": max(axis.high, known.high)}
            wider[edge.path] = axis.model_copy(update=ends)
    return wider


def widen(edge: Edge) -> Float | Int | None:
    """Returns the range of an edge widened at that end, or None where its bounds do not allow it.

    It is widened by a third of its width, of the logarithm where that is searched; towards a bound
    that the value must not reach, by half of the way at most.

    Args:
        edge: The range and its end.
    """
    axis, one = edge.axis, _hyperparameter_of(edge)
    if one is None:
        return None
    bounds = _bounds_of(one, edge.key)
    low, high = float(axis.low), float(axis.high)
    if axis.log:
        step = (high / low) ** _STEP
        wanted = low / step if edge.side == "low" else high * step
    else:
        wanted = edge.end + (high - low) * _STEP * (-1 if edge.side == "low" else 1)
    wanted = _keep_within(wanted, edge, bounds)
    if isinstance(axis, Int):
        new: float = math.floor(wanted) if edge.side == "low" else math.ceil(wanted)
    else:
        new = float(f"{wanted:.4g}")
    gained = place_of(axis, new) - 1 if edge.side == "high" else -place_of(axis, new)
    if gained < _LEAST or (axis.log and new <= 0):
        return None
    wider = axis.model_copy(update={edge.side: new})
    try:
        one.fit(edge.key, wider)
    except ValueError:
        return None
    return wider


def _ends(spec: StudySpec, record: TrialRecord) -> Iterable[_End]:
    """Yields the ranges at whose ends a trial lies."""
    for branch in branches_of(spec, record.proposal.params):
        for key, axis in branch.axes.items():
            value = record.proposal.params.get(branch.param(key))
            if value is None or isinstance(axis, Choice | Fixed) or axis.low == axis.high:
                continue
            place = place_of(axis, float(value))
            if not ZONE <= place <= 1 - ZONE:
                yield branch, key, axis, "low" if place < ZONE else "high"


def _hyperparameter_of(edge: Edge) -> Hyperparameter | None:
    return next((one for one in edge.branch.hyperparameters if edge.key in one.keys), None)


def _bounds_of(one: Hyperparameter, key: str) -> Bounds:
    """Returns the values that a key may have; those of its complement, mirrored."""
    own = one.bounds
    if not (one.complement and key == one.search_name):
        return own
    return Bounds(1 - own.high, 1 - own.low, own.open_high, own.open_low)


def _keep_within(wanted: float, edge: Edge, bounds: Bounds) -> float:
    """Returns a new end that does not pass its bound, nor reach one that must not be reached."""
    is_low, log = edge.side == "low", edge.axis.log
    bound = bounds.low if is_low else bounds.high
    if math.isinf(bound) or (log and bound <= 0):
        return wanted
    if bounds.open_low if is_low else bounds.open_high:
        bound = math.sqrt(edge.end * bound) if log else (edge.end + bound) / 2
    return max(wanted, bound) if is_low else min(wanted, bound)
