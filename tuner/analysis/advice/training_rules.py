"""Rules about training: divergences, losses that still fall, and devices that idle."""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict

from tuner.analysis.advice.commands import search_again
from tuner.analysis.advice.evidence import Advice, Evidence
from tuner.domain.catalog.dimensions import Dimension, Float
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.names import name_some
from tuner.domain.trials import Outcome, TrialRecord

DIVERGED_TRIALS = 8
"""Finished trials from which on divergences are counted: of fewer, a few are no pattern."""

DIVERGED_SHARE = 0.25
"""The share of diverged trials that is too much. A good range ends a little beyond where training
breaks down, so some divergences are in order."""

FALLING_TRIALS = 3
"""Complete trials that are looked at, the best ones."""

FALLING_EVALUATIONS = 4
"""Evaluations of a trial, at least: the last quarter needs one of its own."""

FALLING_SHARE = 0.1
"""The share of all that a trial gained since its first evaluation which the last quarter of its
training brought. Of ten evaluations, a curve that falls like 1/t gains 5% there, one like the
logarithm of t 16%."""

IDLE_TRIALS = 3
"""Trials of each of two batch sizes, at least, whose speeds are compared: one alone may have shared
the device with another program."""

IDLE_GROWTH = 0.8
"""How nearly the examples a second grow as the batch: twice the batch, 1.74 times the examples. A
device that is busy takes twice the time for twice the batch."""

_LOWER = 100.0
"""The factor by which the lowest learning rate goes down where every trial diverged."""


def all_diverged(evidence: Evidence) -> list[Advice]:
    """Advises much lower learning rates where every trial diverged."""
    counts = evidence.summary.counts
    diverged, spec = counts[Outcome.DIVERGED], evidence.summary.spec
    others = counts[Outcome.COMPLETE] + counts[Outcome.PRUNED] + counts[Outcome.PAUSED]
    if others or diverged < DIVERGED_TRIALS:
        return []
    axes: dict[tuple[str, str, str], Dimension] = {}
    for name in spec.space.optimizers:
        key = OPTIMIZERS[name].rate
        axis = spec.optimizer[name].get(key)
        if isinstance(axis, Float) and axis.low > 0:
            low = _round(axis.low / _LOWER)
            axes["optimizer", name, key] = Float(low=low, high=axis.low, log=True)
    command = search_again(spec, "lower", {}, axes=axes) if axes else None
    if command is None:
        return []
    sentence = (
        f"All {diverged} trials diverged: unless the loss itself is not sound, learning rates are "
        f"too high. Search down to a {_LOWER:.0f}th of the lowest."
    )
    return [Advice("all-diverged", sentence, command)]


def many_diverged(evidence: Evidence) -> list[Advice]:
    """Advises lower learning rates, or clipped gradients, where many trials diverged."""
    summary, spec = evidence.summary, evidence.summary.spec
    diverged = [record for record in summary.records if record.outcome is Outcome.DIVERGED]
    finished = evidence.compared
    if summary.best is None or finished < DIVERGED_TRIALS:
        return []
    if len(diverged) <= DIVERGED_SHARE * finished:
        return []
    axes = _lowered(evidence, diverged)
    if not axes and spec.train.grad_clip is not None:
        return []
    changes = {} if axes else {"train.grad_clip": 1.0}
    command = search_again(spec, "stable", changes, axes=axes)
    if command is None:
        return []
    by_optimizer = Counter(record.optimizer for record in diverged).most_common()
    told = name_some([f"{name} {count}" for name, count in by_optimizer])
    remedy = (
        "Search learning rates up to the median of those that diverged."
        if axes
        else "Clip the gradients."
    )
    sentence = f"{len(diverged)} of {finished} finished trials diverged ({told}). {remedy}"
    return [Advice("diverged", sentence, command)]


def _lowered(
    evidence: Evidence, diverged: list[TrialRecord]
) -> dict[tuple[str, str, str], Dimension]:
    """Returns ranges of learning rates that end where half of the diverged trials lie.

    None ends below twice the largest of an optimizer's three best trials.
    """
    spec = evidence.summary.spec
    rates: dict[str, list[float]] = defaultdict(list)
    for record in diverged:
        rate = record.proposal.params.get(f"{record.optimizer}.{OPTIMIZERS[record.optimizer].rate}")
        if isinstance(rate, float):
            rates[record.optimizer].append(rate)
    axes: dict[tuple[str, str, str], Dimension] = {}
    for name, own in rates.items():
        key = OPTIMIZERS[name].rate
        axis = spec.optimizer.get(name, {}).get(key)
        best = [r for r in evidence.ranked if r.optimizer == name][:3]
        safe = max((float(r.proposal.params.get(f"{name}.{key}", 0.0)) for r in best), default=0.0)
        high = _round(max(statistics.median(own), 2 * safe))
        if len(own) > 1 and isinstance(axis, Float) and axis.low < high < axis.high:
            axes["optimizer", name, key] = Float(low=axis.low, high=high, log=axis.log)
    return axes


def still_falling(evidence: Evidence) -> list[Advice]:
    """Advises longer trials where the best ones were still getting better as they ended."""
    spec = evidence.summary.spec
    best = evidence.ranked[:FALLING_TRIALS]
    if spec.study.target is not None or len(best) < FALLING_TRIALS:
        return []
    shares = []
    for record in best:
        costs = evidence.costs(record)
        if len(costs) < FALLING_EVALUATIONS or "stopped_early" in record.attributes:
            return []
        gained = costs[0] - costs[-1]
        if gained <= 0 or costs[-1] > min(costs):
            return []
        shares.append((costs[math.floor(0.75 * len(costs)) - 1] - costs[-1]) / gained)
    share = statistics.median(shares)
    if share < FALLING_SHARE:
        return []
    length = next(key for key in ("steps", "epochs", "examples") if getattr(spec.budget, key))
    command = search_again(spec, "longer", {f"budget.{length}": 2 * getattr(spec.budget, length)})
    if command is None:
        return []
    sentence = (
        f"The best {FALLING_TRIALS} trials were still getting better: the last quarter of training "
        f"brought {share:.0%} of their gain since the first evaluation. Train for longer."
    )
    return [Advice("still-falling", sentence, command)]


def idle_device(evidence: Evidence) -> list[Advice]:
    """Advises larger batches where a larger one takes hardly longer, so that the device idles."""
    spec = evidence.summary.spec
    seconds: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in evidence.ordered:
        batch, took = record.proposal.params.get("batch_size"), _step_seconds(record)
        if isinstance(batch, int) and not isinstance(batch, bool) and took is not None:
            seconds[batch][record.optimizer].append(took)
    enough = [s for s in seconds if sum(map(len, seconds[s].values())) >= IDLE_TRIALS]
    sizes = sorted(enough)
    if len(sizes) < 2 or sizes[-1] != max(seconds):
        return []
    smaller, larger = sizes[-2:]
    ratios = [
        statistics.median(seconds[larger][name]) / statistics.median(seconds[smaller][name])
        for name in sorted(seconds[smaller].keys() & seconds[larger].keys())
    ]
    if not ratios:
        return []
    faster = larger / smaller / statistics.median(ratios)
    if math.log(faster) < IDLE_GROWTH * math.log(larger / smaller):
        return []
    choices = [larger, 2 * larger, 4 * larger]
    command = search_again(spec, "batches", {"train.batch_size": {"choices": choices}})
    if command is None:
        return []
    sentence = (
        f"Batches of {larger} train {faster:.2g} times as many examples a second as batches of "
        f"{smaller}: the device is not busy yet. Try larger ones."
    )
    return [Advice("idle-device", sentence, command)]


def _step_seconds(record: TrialRecord) -> float | None:
    """Returns the seconds a step took of a trial that trained alone; None where unknown."""
    attributes = record.attributes
    steps, took, lanes = (attributes.get(key) for key in ("steps", "train_s", "lanes"))
    if not isinstance(steps, int) or not isinstance(took, int | float) or steps < 1 or took <= 0:
        return None
    return None if isinstance(lanes, int) and lanes > 1 else float(took) / steps


def _round(value: float) -> float:
    return float(f"{value:.3g}")
