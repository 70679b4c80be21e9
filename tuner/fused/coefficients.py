"""The coefficients that lanes are updated with, worked out from the configurations of trials."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tuner.domain.catalog.calls import OTHERS, Call, Parameters
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.schedules import count_epochs
from tuner.domain.groups import REST, GroupValues, group_settings
from tuner.domain.trials import TrialConfig
from tuner.fused.lane_state import Segment, merge
from tuner.fused.lane_update import IDLE, WIDTH, Coefficients, Kind
from tuner.fused.schedules import evaluate_schedules
from tuner.fused.update_rules import ACCUMULATING, RULES, Stretch, coefficients_of, defaults_of
from tuner.optim.groups import select_parameters, split_model, trainable

Cut = tuple[int, float]
"""A step, from 0, and the factor on the learning rate from there on, of a schedule that follows
the metric."""

_INDEX = {name: index for index, name in enumerate(Coefficients._fields)}


@dataclass(frozen=True)
class Column:
    """Parameters that train alike in every lane.

    Attributes:
        group: The parameter group they are of.
        spared: Whether they are spared from weight decay.
        takers: The parts of the parameters, ``all`` included, that they belong to.
        begins: The first step, from 0, that they train in.
    """

    group: str
    spared: bool
    takers: frozenset[Parameters]
    begins: int

    @property
    def matrices(self) -> bool:
        """Whether some optimizer trains them as matrices."""
        return not self.takers.isdisjoint(("matrices", "hidden"))


@dataclass(frozen=True)
class _Alike:
    """Lanes whose optimizers are of one class, with arguments of the same names.

    Attributes:
        target: The import path of the class.
        lanes: The lanes, int64.
        settings: The arguments, numbers as tensors of shape (lanes, 1).
        lr: The initial learning rate, or the factor on it, of shape (lanes, 1).
        pulls: The arguments of Lookahead, lane by lane; empty without Lookahead.
    """

    target: str
    lanes: Tensor
    settings: dict[str, Any]
    lr: Tensor
    pulls: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class _Scheduled:
    """The values that schedules set over some steps, each of shape (lanes, steps).

    Attributes:
        factors: The factors on the learning rates.
        momenta: The momenta, NaN where a schedule leaves them alone.
        warmth: The parts of the warmup of momentum that have passed, or None without any.
    """

    factors: Tensor
    momenta: Tensor
    warmth: Tensor | None

    def of(
        self, alike: _Alike, steps: Tensor, since: int = 0, before: Stretch | None = None
    ) -> Stretch:
        """Returns the steps of some lanes, but for the first few."""
        factors, momenta = (part[alike.lanes, since:] for part in (self.factors, self.momenta))
        warmth = None if self.warmth is None else self.warmth[alike.lanes, since:]
        return Stretch(steps, alike.lr * factors, momenta, warmth, before)


class LaneCoefficients:
    """The coefficients of lanes by step; see :mod:`tuner.fused.update_rules`.

    Args:
        model: A model like those of the lanes.
        configs: Their configurations, all with the same fuse key.
        total_steps: Steps of a full trial.
        spare_vectors: Whether parameters with fewer than two dimensions are spared from weight
            decay.
        parts: The parts of the parameters that some optimizer takes: ``matrices``, ``hidden``.
        epoch_steps: Steps of an epoch, where schedules are stepped by epoch.

    Attributes:
        columns: The sets of parameters that have coefficients of their own.
        segments: The places of these in a lane's row.
    """

    def __init__(
        self,
        model: nn.Module,
        configs: Sequence[TrialConfig],
        total_steps: int,
        *,
        spare_vectors: bool = False,
        parts: Iterable[Parameters] = (),
        epoch_steps: int | None = None,
    ) -> None:
        self._total = total_steps
        self._epoch_steps = epoch_steps or 1
        self.columns, self.segments = split_columns(
            model, configs[0].groups, total_steps, spare_vectors=spare_vectors, parts=parts
        )
        self._schedules = [(c.schedule, c.schedule_values) for c in configs]
        warmups = [round(config.momentum_warmup * total_steps) for config in configs]
        # Steps over which momentum rises, where any does.
        self._warmups = np.array(warmups)[:, None] if any(warmups) else None
        calls = [OPTIMIZERS[c.optimizer].calls(c.optimizer_values, total_steps) for c in configs]
        self._muon = [any(RULES[c.target].kind is Kind.ORTHOGONAL for c in own) for own in calls]
        groups = [{values.name: values for values in c.groups} for c in configs]
        self._alike = [
            _gather([_choose(*lane, column) for lane in zip(calls, groups, strict=True)])
            for column in self.columns
        ]

    def trained(self, step: int) -> tuple[Segment, ...]:
        """Returns the segments of those parameters that train in a step, from 0."""
        return tuple(part for part in self.segments if self.columns[part.column].begins <= step)

    def has_muon(self, lane: int) -> bool:
        """Tells whether a lane trains matrices with Muon."""
        return self._muon[lane]

    def rows(
        self,
        start: int,
        stop: int,
        cuts: Sequence[Sequence[Cut]] = (),
        dtype: torch.dtype = torch.float64,
        lanes: Sequence[int] | None = None,
    ) -> Tensor:
        """Returns the coefficients of some steps.

        Args:
            start: The first step, from 0.
            stop: The first one after.
            cuts: The cuts of every lane, in order.
            dtype: The type they are rounded to.
            lanes: The lanes, in order; left out, all of them.

        Returns:
            A tensor of shape (stop − start, columns, WIDTH, lanes, 1).
        """
        scheduled = self._schedule(start, stop, cuts)
        chosen = torch.arange(len(self._schedules)) if lanes is None else torch.tensor(lanes)
        rows = torch.empty(stop - start, len(self.columns), WIDTH, len(chosen), dtype=dtype)
        for index, (column, (alike, places)) in enumerate(
            zip(self.columns, self._alike, strict=True)
        ):
            found = self._rows_of(column, alike, start, stop, scheduled, cuts)
            rows[:, index] = found[:, places[chosen]].permute(2, 0, 1)
        return rows.unsqueeze(-1)

    def _rows_of(
        self,
        column: Column,
        groups: Sequence[_Alike],
        start: int,
        stop: int,
        scheduled: _Scheduled,
        cuts: Sequence[Sequence[Cut]],
    ) -> Tensor:
        """Returns a column's coefficients, of shape (WIDTH, lanes, T), lanes as in its groups."""
        table = torch.zeros(WIDTH, len(self._schedules), stop - start, dtype=torch.float64)
        first = min(max(start, column.begins), stop)
        for name, value in IDLE.items():
            table[_INDEX[name], :, : first - start] = value
        steps = torch.arange(first, stop, dtype=torch.float64) - column.begins + 1
        active, end = table[:, :, first - start :], 0
        for alike in groups if first < stop else ():
            before = None
            if first > column.begins and alike.target in ACCUMULATING:
                before = self._before(alike, column, first, cuts)
            stretch = scheduled.of(alike, steps, first - start, before)
            row = coefficients_of(alike.target, alike.settings, stretch)
            begin, end = end, end + len(alike.lanes)
            for key, coefficient in row.items():
                active[_INDEX[key], begin:end] = coefficient
            for lane, pull in enumerate(alike.pulls):
                if pull:
                    ends = (torch.arange(first, stop) + 1) % pull["k"] == 0
                    active[_INDEX["pull"], begin + lane] = ends * pull["alpha"]
        return table

    def _schedule(self, start: int, stop: int, cuts: Sequence[Sequence[Cut]]) -> _Scheduled:
        at = np.arange(start, stop)
        length = count_epochs(self._total, self._epoch_steps)
        factors, momenta = evaluate_schedules(self._schedules, length, at // self._epoch_steps)
        for lane, own in enumerate(cuts):
            scale = np.ones(len(at))
            for step, value in own:
                scale[at >= step] = value
            if own:
                factors[lane] *= scale
        warmth = None
        if self._warmups is not None:
            # Where there is none, it is over from the start.
            passed = (at + (self._warmups == 0)) / np.maximum(self._warmups, 1)
            warmth = torch.from_numpy(np.minimum(passed, 1.0))
        return _Scheduled(torch.from_numpy(factors), torch.from_numpy(momenta), warmth)

    def _before(
        self, alike: _Alike, column: Column, first: int, cuts: Sequence[Sequence[Cut]]
    ) -> Stretch:
        steps = torch.arange(1, first - column.begins + 1, dtype=torch.float64)
        return self._schedule(column.begins, first, cuts).of(alike, steps)


def split_columns(
    model: nn.Module,
    groups: Sequence[GroupValues],
    total_steps: int,
    *,
    spare_vectors: bool,
    parts: Iterable[Parameters],
) -> tuple[tuple[Column, ...], tuple[Segment, ...]]:
    """Returns the sets of parameters that have coefficients of their own, and their places."""
    columns: list[Column] = []
    column_of: dict[int, int] = {}
    for block in split_model(model, groups, spare_vectors=spare_vectors):
        begins = _begin(block.values.frozen_until, total_steps)
        trained = [p for p in block.parameters if p.requires_grad]
        for takers, own in _divide(trained, model, parts).items():
            column_of |= {id(p): len(columns) for p in own}
            columns.append(Column(block.values.name, block.spared, takers, begins))
    layout = [(p.numel(), column_of[id(p)]) for p in trainable(model).values()]
    return tuple(columns), merge(layout)


def _divide(
    parameters: Sequence[Tensor], model: nn.Module, parts: Iterable[Parameters]
) -> dict[frozenset[Parameters], list[Tensor]]:
    """Returns parameters by the parts of the model's parameters that they belong to."""
    takers: dict[int, set[Parameters]] = {id(p): {"all"} for p in parameters}
    for part in parts:
        for which in (part, OTHERS[part]):
            for p in select_parameters(which, parameters, model):
                takers[id(p)].add(which)
    divided = defaultdict(list)
    for p in parameters:
        divided[frozenset(takers[id(p)])].append(p)
    return divided


def _begin(until: float, total_steps: int) -> int:
    """Returns the first step of a group that is frozen until a fraction of a trial."""
    if not until:
        return 0
    begins = max(0, math.ceil(until * total_steps) - 1)
    while begins < total_steps and begins / total_steps < until:
        begins += 1
    return begins


def _choose(
    calls: Sequence[Call], groups: dict[str, GroupValues], column: Column
) -> tuple[Call, dict[str, Any]]:
    """Returns the optimizer that a lane trains a column with, and all its arguments."""
    [call] = [call for call in calls if call.parameters in column.takers]
    values = groups.get(column.group, GroupValues(REST, "*"))
    accepted = defaults_of(call.target)
    own = group_settings(call, values, spared=column.spared, accepted=accepted)
    return call, {**accepted, **call.arguments, **own}


def _gather(lanes: Sequence[tuple[Call, dict[str, Any]]]) -> tuple[list[_Alike], Tensor]:
    """Returns lanes in groups that are worked out at once, and the place of each lane in these."""
    members = defaultdict(list)
    for lane, (call, settings) in enumerate(lanes):
        # Settings that are no numbers choose the rule.
        others = tuple(v for v in settings.values() if isinstance(v, bool | str | None))
        members[call.target, tuple(settings), others].append(lane)
    groups = []
    for (target, names, _), own in members.items():
        found = [lanes[lane][1] for lane in own]
        settings = {name: _stack([one[name] for one in found]) for name in names}
        around = [lanes[lane][0].wrapper for lane in own]
        pulls = tuple({} if wrapper is None else wrapper.arguments for wrapper in around)
        [rate] = {lanes[lane][0].rate for lane in own}
        groups.append(_Alike(target, torch.tensor(own), settings, settings[rate], pulls))
    return groups, torch.cat([alike.lanes for alike in groups]).argsort()


def _stack(values: list[Any]) -> Any:
    """Returns the values of several lanes as one of shape (lanes, 1), tuples number by number."""
    first = values[0]
    if isinstance(first, tuple):
        return tuple(_stack(list(members)) for members in zip(*values, strict=True))
    if isinstance(first, bool | str | None):
        return first
    return torch.tensor(values, dtype=torch.float64)[:, None]
