"""The importance of choices: how much of the differences between trials each of them explains.

First comes the choice of the optimizer, among all trials; then, among the trials of one optimizer,
its own hyperparameters and the schedule's. So a hyperparameter is compared only with what varies
beside it, and one that exists in few trials is not overlooked for that.

Values count by rank, so that one trial does not outweigh all others: they are replaced by quantiles
of a normal distribution, those that ended early behind those that got further, and diverged ones
last (:mod:`tuner.analysis.order`). An additive model is fitted by least squares, with a line and a
parabola for each number and a level for each choice. These are the main effects of a functional
analysis of variance, as of Hutter, Hoos and Leyton-Brown, "An Efficient Approach for Assessing
Hyperparameter Importance", ICML 2014, by polynomials in place of a forest (Sudret, "Global
sensitivity analysis using polynomial chaos expansions", 2008), which tell more from few trials. The
variance is that over the trials that ran, not over the whole space.

The shares add up to at most what the model predicts of trials that it was not fitted to, each left
out in turn; the rest is not explained. A share is told only where an F test, corrected by Holm's
method for all choices of the model, tells it from noise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtrc, ndtri

from tuner.analysis.order import order_trials
from tuner.domain.catalog.dimensions import Choice, Dimension, Fixed, Float, Int, place_of
from tuner.domain.spec import StudySpec
from tuner.domain.trials import TrialRecord

Matrix = NDArray[np.float64]

ENOUGH = 12
"""Trials that tell anything at all: fewer say nothing about importance."""

EACH = 3
"""Trials for each column of the model, at least; what would be too many is left out."""

LEVEL = 0.05
"""The probability that any choice of one model is told to matter where none does."""

_SEEN = 3
"""Trials that a choice must have been made in to have a level of its own."""


@dataclass(frozen=True)
class Share:
    """The importance of one choice.

    Attributes:
        name: The parameter's name, such as ``optimizer`` or ``adam.lr``.
        share: The share of the differences between the trials that it explains, in [0, 1]; None
            where it is not told from noise.
        p: The probability of as large an effect where it has none, corrected for all of the model.
        fitted: Its part of all that the model has fitted, in [0, 1], told from noise or not.
    """

    name: str
    share: float | None
    p: float
    fitted: float


@dataclass(frozen=True)
class Among:
    """The importance of several choices among the same trials.

    Attributes:
        optimizer: The optimizer whose trials they are; None for those of all optimizers.
        trials: The number of trials.
        explained: The share of their differences that all choices together predict; None where
            there are too few trials to tell.
        shares: The choices, the most important first.
        left_out: The names of those that there were too few trials for.
    """

    optimizer: str | None
    trials: int
    explained: float | None
    shares: tuple[Share, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Importance:
    """The importance of the choice of optimizer, and of each optimizer's hyperparameters.

    Attributes:
        choice: The choice of the optimizer, among all trials; None where there is only one.
        inside: The choices inside of each optimizer, the one of the best value first.
    """

    choice: Among | None
    inside: tuple[Among, ...]


def measure_importance(spec: StudySpec, records: Iterable[TrialRecord]) -> Importance:
    """Returns the importance of the choice of optimizer, and of what was searched inside each.

    Args:
        spec: A resolved spec.
        records: The study's trials.
    """
    ordered = order_trials(spec, records)
    names = dict.fromkeys(record.optimizer for _, record in ordered)
    own = {
        name: [(standing, record) for standing, record in ordered if record.optimizer == name]
        for name in [*names, *(n for n in spec.space.optimizers if n not in names)]
    }
    compared = [pair for pairs in own.values() if len(pairs) >= _SEEN for pair in pairs]
    choice = None
    if len(spec.space.optimizers) > 1:
        axes: dict[str, Dimension] = {"optimizer": Choice(choices=tuple(own))}
        choice = _measure(None, sorted(compared, key=lambda pair: pair[0]), axes)
    axes = {name: axis for name, axis in spec.axes().items() if name != "optimizer"}
    inside = [_measure(name, pairs, _arrange(name, pairs, axes)) for name, pairs in own.items()]
    return Importance(choice, tuple(inside))


def _arrange(
    optimizer: str, pairs: Sequence[tuple[Any, TrialRecord]], axes: Mapping[str, Dimension]
) -> dict[str, Dimension]:
    """Returns the axes that an optimizer's trials vary in: its own, the common, the conditional."""
    loops = {name: axis for _, record in pairs for name, axis in record.own_axes.items()}
    seen = Counter(name for _, record in pairs for name in record.proposal.params)
    known = {name: axis for name, axis in {**axes, **loops}.items() if seen[name]}

    def place(name: str) -> tuple[int, int]:
        is_own = name.startswith((f"{optimizer}.", "network."))
        return (0 if is_own else 1 if seen[name] == len(pairs) else 2), list(known).index(name)

    return {name: known[name] for name in sorted(known, key=place)}


def _measure(
    optimizer: str | None,
    pairs: Sequence[tuple[tuple[float, float], TrialRecord]],
    axes: Mapping[str, Dimension],
) -> Among:
    count = len(pairs)
    if count < ENOUGH:
        return Among(optimizer, count, None)
    points = [record.proposal.params for _, record in pairs]
    blocks: dict[str, Matrix] = {}
    left_out: list[str] = []
    for name, axis in axes.items():
        columns = _columns(axis, [point.get(name) for point in points])
        if not columns.shape[1]:
            continue
        if EACH * (columns.shape[1] + sum(b.shape[1] for b in blocks.values())) > count:
            left_out.append(name)
        else:
            blocks[name] = columns
    if not blocks:
        return Among(optimizer, count, None, (), tuple(left_out))
    explained, shares = _fit(_scores([standing for standing, _ in pairs]), blocks)
    return Among(optimizer, count, explained, shares, tuple(left_out))


def _scores(standings: Sequence[tuple[float, float]]) -> Matrix:
    """Returns normal quantiles of sorted standings; equal ones share the mean of their places."""
    places: dict[tuple[float, float], list[int]] = {}
    for place, standing in enumerate(standings):
        places.setdefault(standing, []).append(place)
    means = {standing: sum(own) / len(own) for standing, own in places.items()}
    shared = np.array([means[standing] for standing in standings])
    scores: Matrix = ndtri((shared + 0.5) / len(standings))
    return scores


def _columns(axis: Dimension, values: Sequence[Any]) -> Matrix:
    """Returns the columns of an axis for the model: centred, and 0 where a trial has no value."""
    has = np.array([value is not None for value in values])
    columns = []
    if isinstance(axis, Float | Int) and has.sum() >= _SEEN:
        places = [0.5 if value is None else place_of(axis, float(value)) for value in values]
        at = 2 * np.clip(np.array(places), 0.0, 1.0) - 1
        columns = [at, 1.5 * at**2 - 0.5]
    elif isinstance(axis, Choice):
        counts = Counter(repr(value) for value in values if value is not None)
        levels = sorted(level for level, count in counts.items() if count >= _SEEN)
        if len(levels) == len(counts):
            levels = levels[1:]  # the mean of all stands for the first
        columns = [np.array([float(repr(v) == level) for v in values]) for level in levels]
    elif isinstance(axis, Fixed):
        columns = []
    centred = [
        np.where(has, column - column[has].mean(), 0.0)
        for column in columns
        if has.any() and np.ptp(column[has]) > 0
    ]
    return np.stack(centred, axis=1) if centred else np.zeros((len(values), 0))


def _fit(scores: Matrix, blocks: Mapping[str, Matrix]) -> tuple[float | None, tuple[Share, ...]]:
    """Returns the share that all blocks predict, and that of each."""
    count = len(scores)
    whole = np.concatenate([np.ones((count, 1)), *blocks.values()], axis=1)
    # A rotation keeps all squares, and leaves a row for each column instead of each trial.
    basis, turned = np.linalg.qr(whole)
    seen = basis.T @ scores
    unseen = float(np.square(scores - basis @ seen).sum())
    weights, rest, rank = _solve(turned, seen)
    rest += unseen
    freedom = count - rank
    if freedom < 1 or np.ptp(scores) == 0:
        return None, ()
    explained = _predict(basis, turned, scores)
    raw, effects, start = {}, {}, 1
    for name, columns in blocks.items():
        width = columns.shape[1]
        others = np.delete(turned, np.s_[start : start + width], axis=1)
        _, rest_without, rank_without = _solve(others, seen)
        rest_without += unseen
        gained = max(1, rank - rank_without)
        if rank == rank_without:  # others say the same
            raw[name] = 1.0
        else:
            ratio = ((rest_without - rest) / gained) / max(rest / freedom, 1e-12)
            raw[name] = float(fdtrc(gained, freedom, max(0.0, ratio)))
        effects[name] = float(np.var(columns @ weights[start : start + width]))
        start += width
    total = sum(effects.values()) or 1.0
    adjusted = _holm(raw)
    shares = [
        Share(
            name,
            explained * effects[name] / total if adjusted[name] <= LEVEL and explained else None,
            adjusted[name],
            effects[name] / total,
        )
        for name in blocks
    ]
    return explained, tuple(sorted(shares, key=lambda s: (-(s.share or 0.0), -s.fitted)))


def _solve(matrix: Matrix, scores: Matrix) -> tuple[Matrix, float, int]:
    """Returns the weights of least squares, the squares that are left, and the rank."""
    solved, _, rank, _ = np.linalg.lstsq(matrix, scores, rcond=1e-9)
    weights = np.asarray(solved, dtype=np.float64)
    rest = float(np.square(scores - matrix @ weights).sum())
    return weights, rest, int(rank)


def _predict(basis: Matrix, turned: Matrix, scores: Matrix) -> float:
    """Returns the share of the differences that is predicted of trials left out, at least 0.

    Args:
        basis: The orthogonal part of the matrix of the trials' choices.
        turned: The triangular part of it.
        scores: What is to be predicted.
    """
    left, values, _ = np.linalg.svd(turned, full_matrices=False)
    basis = basis @ left[:, values > 1e-9 * values[0]]
    leverage = np.square(basis).sum(axis=1)
    residuals = scores - basis @ (basis.T @ scores)
    missed = residuals / np.maximum(1 - leverage, 1e-3)
    count = len(scores)
    plain = (scores - scores.mean()) * count / (count - 1)
    return max(0.0, 1 - float(np.square(missed).sum() / np.square(plain).sum()))


def _holm(raw: Mapping[str, float]) -> dict[str, float]:
    """Returns p-values corrected for their number (Holm, 1979)."""
    adjusted, largest = {}, 0.0
    for place, name in enumerate(sorted(raw, key=lambda name: raw[name])):
        largest = max(largest, min(1.0, raw[name] * (len(raw) - place)))
        adjusted[name] = largest
    return adjusted
