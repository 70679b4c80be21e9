"""Takes openings and good learning rates for a new study from an earlier one.

It is worked out once, as the new study is created, and kept in its spec: so all workers start with
the same, whatever becomes of the earlier study.
"""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tuner.domain.catalog.dimensions import Float, Value, holds
from tuner.domain.catalog.hyperparameters import Hyperparameter, LogNormalPrior
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.lengths import split_by_length
from tuner.domain.objective import sign_of, tell_value
from tuner.domain.spec import StudySpec
from tuner.domain.train import MOMENTUM_WARMUP
from tuner.domain.trials import Decoder, TrialConfig, TrialRecord
from tuner.domain.warm_start import Opening, OwnValue, Prior, WarmStart
from tuner.search.portfolio import encode_network, fit_entry

OPENINGS = 4
"""Configurations that are taken over: the best of the best optimizers, and the second best."""

_ALIKE = 0.1
"""Decades that the learning rates of two configurations of one optimizer differ by at least."""

_HORIZON = 0.3
"""The exponent by which good learning rates fall with the length of a trial: rate ∝ length^−0.3.

Bjorck et al., "Scaling Optimal LR Across Token Horizons" (ICLR 2025), find 0.32 for AdamW; on the
tables of ``benchmarks.search``, the rates of all optimizers fall by 0.35 from 180 to 540 steps.
"""

_FARTHEST = 1000.0
"""How many times as long trials may be for rates to fall any more: none of the sources goes on."""

_TAUGHT_BY = 3
"""The best trials of an optimizer that its prior is moved to."""

_NARROWEST = 0.7
"""The least standard deviation, in decades, of a belief that an earlier study has moved."""


@dataclass(frozen=True)
class Earlier:
    """A study that came before.

    Attributes:
        name: Its name.
        spec: Its resolved spec.
        records: Its trials.
    """

    name: str
    spec: StudySpec
    records: Sequence[TrialRecord]

    @property
    def ranked(self) -> list[TrialRecord]:
        """Its complete trials that are ranked with each other, the best first."""
        sign = sign_of(self.spec.study.ranking)
        complete, _ = split_by_length(self.records)
        return sorted(complete, key=lambda r: (sign * (r.value or 0.0), r.number))


_Known = tuple[TrialRecord, TrialConfig]


def take_over(spec: StudySpec, earlier: Earlier) -> WarmStart | None:
    """Returns what a study takes over from an earlier one.

    Optimizers that do not compete are left out, and values outside a range become the nearest
    inside, as with the portfolio. Learning rates are rescaled where trials are longer or shorter.

    Args:
        spec: The new study, resolved.
        earlier: The earlier one, of the same workload, metric and direction.

    Returns:
        What it starts with, or None if none of the earlier study's complete trials has an optimizer
        that competes. A trial with values that the new space cannot take is left out.
    """
    ranked = earlier.ranked
    known = _decode_all(spec, earlier, ranked)
    factor = _rate_factor(length_ratio(earlier.spec, spec))
    openings: list[Opening] = []
    for record, config in _choose(known):
        with contextlib.suppress(*_MISFITS):
            opening = _to_opening(spec, record, config, factor)
            if opening not in openings:
                openings.append(opening)
    if not openings:
        return None
    return WarmStart(
        study=earlier.name[:_NAME],
        trials=len(ranked),
        value=float(ranked[0].value or 0.0),
        best=tell_value(earlier.spec.study, ranked[0].value),
        rescaled=factor,
        openings=tuple(openings),
        priors=_move_priors(spec, [config for _, config in known], factor),
    )


_MISFITS = (KeyError, TypeError, ValueError)
"""The errors that values of another database raise if no study of tuner's recorded them."""

_NAME = 500
"""Letters that are kept of a study's name."""


def _decode_all(spec: StudySpec, earlier: Earlier, ranked: Iterable[TrialRecord]) -> list[_Known]:
    """Returns trials of optimizers that compete, each with its configuration."""
    decoder = Decoder(earlier.spec)
    known: list[_Known] = []
    for record in ranked:
        if record.optimizer in spec.space.optimizers:
            with contextlib.suppress(*_MISFITS):
                known.append((record, decoder.decode(record.proposal)))
    return known


def length_ratio(earlier: StudySpec, spec: StudySpec) -> float | None:
    """Returns how many times as long a study's full trials are as an earlier one's.

    Args:
        earlier: The earlier study.
        spec: The other one.

    Returns:
        The ratio, within a thousandth and a thousand, or None if their lengths are given in
        different units.
    """
    for unit in ("steps", "epochs", "examples"):
        before, after = getattr(earlier.budget, unit), getattr(spec.budget, unit)
        if before is not None and after is not None:
            return min(max(float(after / before), 1 / _FARTHEST), _FARTHEST)
    return None


def _rate_factor(ratio: float | None) -> float:
    """Returns the factor of learning rates for trials so many times as long; 1 if not known."""
    return 1.0 if ratio is None else ratio**-_HORIZON


def _choose(known: Sequence[_Known]) -> list[_Known]:
    """Returns the best trial of each of the best optimizers, and the best that is left after.

    Args:
        known: Trials with their configurations, the best first.
    """
    best: dict[str, _Known] = {}
    for pair in known:
        best.setdefault(pair[1].optimizer, pair)
    chosen = list(best.values())[: OPENINGS - 1]
    for pair in known:
        if len(chosen) < OPENINGS and not any(_is_alike(pair[1], other) for _, other in chosen):
            chosen.append(pair)
    ranks = {record.number: rank for rank, (record, _) in enumerate(known)}
    return sorted(chosen, key=lambda pair: ranks[pair[0].number])


def _is_alike(one: TrialConfig, other: TrialConfig) -> bool:
    """Tells whether two configurations differ by too little to start with both."""
    if (one.optimizer, one.schedule) != (other.optimizer, other.schedule):
        return False
    rate = OPTIMIZERS[one.optimizer].rate
    pair = [float(config.optimizer_values[rate]) for config in (one, other)]
    return min(pair) <= 0 or abs(math.log10(pair[0] / pair[1])) < _ALIKE


def _to_opening(
    spec: StudySpec, record: TrialRecord, config: TrialConfig, factor: float
) -> Opening:
    """Returns a trial of an earlier study as an opening of a new one."""
    optimizer, schedule = config.optimizer, config.schedule
    entry = {
        "optimizer": optimizer,
        "schedule": schedule,
        optimizer: _rescaled(optimizer, config.optimizer_values, factor),
        schedule: config.schedule_values,
    }
    beside: dict[str, Value] = {
        name: value
        for name, value in record.proposal.params.items()
        if not name.startswith((f"{optimizer}.", f"{schedule}.", "network."))
    }
    for network in config.networks:
        beside |= encode_network(
            network, optimizer, _rescaled(optimizer, config.values_of(network), factor)
        )
    beside |= {
        "batch_size": config.batch_size,
        "average": config.average,
        MOMENTUM_WARMUP: config.momentum_warmup,
    }
    own = {
        name: OwnValue(value=record.proposal.params[name], axis=axis)
        for name, axis in record.own_axes.items()
        if holds(axis, record.proposal.params.get(name))
    }
    return Opening(params=fit_entry(spec, entry, beside), own=own)


def _rescaled(optimizer: str, values: Mapping[str, Value], factor: float) -> dict[str, Value]:
    """Returns hyperparameters of an optimizer with its learning rates multiplied by a factor."""
    rates = {one.name for one in _rates_of(optimizer)}
    return {
        name: float(value) * factor if name in rates else value for name, value in values.items()
    }


def _rates_of(optimizer: str) -> Iterator[Hyperparameter]:
    """Yields the learning rates of an optimizer: its own, and that of the one beside it."""
    for one in OPTIMIZERS[optimizer].hyperparameters:
        if "lr" in (one.name, one.argument):
            yield one


def _move_priors(spec: StudySpec, known: Iterable[TrialConfig], factor: float) -> dict[str, Prior]:
    """Returns beliefs about learning rates, moved towards those of each optimizer's best trials.

    A belief of the catalog is moved half the way, and none is narrower than _NARROWEST.

    Args:
        spec: The new study, resolved.
        known: The configurations of the earlier one's complete trials, the best first.
        factor: What learning rates are multiplied by.
    """
    found: dict[tuple[str, Hyperparameter], list[float]] = {}
    for config in known:
        axes = spec.optimizer[config.optimizer]
        for one in _rates_of(config.optimizer):
            axis, rate = axes.get(one.name), float(config.optimizer_values[one.name]) * factor
            logs = found.setdefault((config.optimizer, one), [])
            searched = isinstance(axis, Float) and axis.low > 0
            if searched and 0 < rate < math.inf and len(logs) < _TAUGHT_BY:
                logs.append(math.log10(rate))
    return {
        f"{optimizer}.{one.name}": _move(one.searched_in(spec.space.regime).prior, logs)
        for (optimizer, one), logs in found.items()
        if logs
    }


def _move(prior: LogNormalPrior | None, logs: Sequence[float]) -> Prior:
    mean, std = statistics.mean(logs), statistics.pstdev(logs)
    if prior is not None:
        mean = (mean + prior.mean) / 2
    return Prior(mean=round(mean, 3), std=round(max(std, _NARROWEST), 3))
