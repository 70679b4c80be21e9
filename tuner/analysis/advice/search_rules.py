"""Rules about the search: its ranges, its pruner, and the number of its hyperparameters."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from tuner.analysis.advice.commands import join, search_again
from tuner.analysis.advice.evidence import Advice, Evidence
from tuner.analysis.edges import BEST, find_edges
from tuner.domain.catalog.dimensions import Choice, Dimension, Fixed
from tuner.domain.catalog.hyperparameters import name_in_torch
from tuner.domain.names import name_some
from tuner.domain.space import branches_of
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Outcome, TrialRecord

LATE_TRIALS = 8
"""Complete trials from which on their order at the first evaluation is compared with the last one:
of fewer, a rank correlation below the bar is common by chance."""

LATE_CORRELATION = 0.3
"""The rank correlation below which the first evaluation tells little of the last. Trials that were
let go on are alike, which lowers it, so the other conditions must hold as well."""

LATE_LOW = 3
"""Complete trials that must have stood in the lower half of all trials at the first evaluation."""

PER_HYPERPARAMETER = 2
"""Finished trials for each searched hyperparameter, at least: a bend in each takes two numbers to
describe, and fewer trials than numbers describe nothing."""

FLAT_TRIALS = 30
"""Trials of an optimizer from which on a hyperparameter may be said not to matter: with as many,
one that explains half of the differences is found in five of six studies."""

FLAT_PART = 0.03
"""The part of all that the model has fitted up to which a hyperparameter is said not to matter."""

EXPLAINED = 0.3
"""The share that all hyperparameters together explain at least: else nothing is known of any."""


def range_edge(evidence: Evidence) -> list[Advice]:
    """Advises wider ranges where the best trials of leading optimizers lie at an end."""
    edges = find_edges(evidence.summary.spec, evidence.summary.records)
    if not edges:
        return []
    told = [
        f"{name} ({side} end {end:.3g}, {len(edge.trials)} of {edge.optimizer}'s best {BEST})"
        for edge in edges
        for name, side, end in (edge.in_torch,)
    ]
    sentence = f"The best trials lie at the end of a range: {name_some(told)}."
    return [Advice("edge", sentence, join("study", "widen", evidence.summary.name))]


def late_bloomers(evidence: Evidence) -> list[Advice]:
    """Advises no pruner where trials that start slowly end well, so that it stops good ones."""
    summary, spec = evidence.summary, evidence.summary.spec
    stopped = summary.counts[Outcome.PRUNED] + summary.counts[Outcome.PAUSED]
    if spec.search.pruner == "none" or spec.study.target is not None or not stopped:
        return []
    begun = {r.number: costs[0] for r in evidence.ordered if (costs := evidence.costs(r))}
    complete = [record for record in evidence.ranked if len(evidence.costs(record)) > 1]
    if len(complete) < LATE_TRIALS:
        return []
    first = [begun[record.number] for record in complete]
    correlation = rank_correlation(first, range(len(complete)))
    median = float(np.median(list(begun.values())))
    low = [record for record in complete if begun[record.number] > median]
    best = {record.number for record in complete[: math.ceil(len(complete) / 3)]}
    rose = [record for record in low if record.number in best]
    if correlation is None or correlation >= LATE_CORRELATION or len(low) < LATE_LOW or not rose:
        return []
    command = search_again(spec, "unpruned", {"search.pruner": "none"})
    if command is None:
        return []
    sentence = (
        f"The first evaluation tells little of the last: over {len(complete)} complete trials the "
        f"ranks correlate by {correlation:.2f}, and {len(rose)} of the best {len(best)} began in "
        f"the lower half of all. Among the {stopped} that the pruner stopped may be good ones."
    )
    return [Advice("late-bloomers", sentence, command)]


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Returns Spearman's rank correlation, or None where one of both does not vary.

    >>> rank_correlation([1, 2, 3], [10, 20, 30])
    1.0
    """
    ranks = [rankdata(one), rankdata(other)]
    if any(np.ptp(each) == 0 for each in ranks):
        return None
    return round(float(np.corrcoef(*ranks)[0, 1]), 6)


def few_trials(evidence: Evidence) -> list[Advice]:
    """Advises fewer hyperparameters where the best optimizer has too few trials for its own."""
    summary, spec = evidence.summary, evidence.summary.spec
    breadth = spec.space.breadth or 1
    if summary.best is None or evidence.goes_on or breadth == 1:
        return []
    row = next(o for o in summary.optimizers if o.optimizer == summary.best.config.optimizer)
    finished = row.complete + row.pruned + row.diverged
    searched = count_searched(spec, summary.best.record)
    if not row.settled or finished >= PER_HYPERPARAMETER * searched:
        return []
    if not _follows_breadth(spec, summary.best.record):
        return []  # a command is given few, say, or the study file sets all that is searched
    command = search_again(spec, "narrow", {"space.breadth": breadth - 1})
    if command is None:
        return []
    sentence = (
        f"{row.optimizer} has had {finished} finished trials for {searched} searched "
        f"hyperparameters, fewer than {PER_HYPERPARAMETER} for each: search fewer of them."
    )
    return [Advice("few-trials", sentence, command)]


def _follows_breadth(spec: StudySpec, record: TrialRecord) -> bool:
    """Tells whether a trial searched anything that a smaller breadth leaves out."""
    breadth = spec.space.breadth or 1
    return any(
        one.searched_in(spec.space.regime).breadth == breadth
        and key in branch.axes
        and not isinstance(branch.axes[key], Fixed)
        and f"{branch.table}.{branch.row}.{key}" not in (spec.written or ())
        for branch in branches_of(spec, record.proposal.params)
        if branch.network is None
        for one in branch.hyperparameters
        for key in one.axis_names
    )


def count_searched(spec: StudySpec, record: TrialRecord) -> int:
    """Returns how many hyperparameters a trial searched, its schedule included.

    Args:
        spec: A resolved spec.
        record: The trial.
    """
    common = [name for name in spec.root_axes() if name not in ("optimizer", "schedule")]
    own = [
        key
        for branch in branches_of(spec, record.proposal.params)
        for key, axis in branch.axes.items()
        if not isinstance(axis, Fixed)
    ]
    several = len(spec.space.schedules) > 1
    return len(common) + len(own) + len(record.own_axes) + several


def no_effect(evidence: Evidence) -> list[Advice]:
    """Advises to fix the hyperparameters of the best optimizer that make no difference."""
    summary, spec = evidence.summary, evidence.summary.spec
    if summary.best is None:
        return []
    optimizer, params = summary.best.config.optimizer, summary.best.record.proposal.params
    among = next((a for a in evidence.importance.inside if a.optimizer == optimizer), None)
    if among is None or among.trials < FLAT_TRIALS or (among.explained or 0.0) < EXPLAINED:
        return []
    flat = {
        share.name for share in among.shares if share.share is None and share.fitted < FLAT_PART
    }
    axes: dict[tuple[str, str, str], Dimension] = {
        (branch.table, branch.row, key): Fixed(value=params[branch.param(key)])
        for branch in branches_of(spec, params)
        for key, axis in branch.axes.items()
        if branch.network is None
        and branch.param(key) in flat & params.keys()
        and not isinstance(axis, Choice | Fixed)
    }
    command = search_again(spec, "fixed", {}, axes=axes) if axes else None
    if command is None:
        return []
    names = [name_in_torch(f"{row}.{key}") for _, row, key in axes]
    sentence = (
        f"{name_some(names)} made no difference that {among.trials} trials of {optimizer} would "
        "show: fix the best trial's value, and search the others."
    )
    return [Advice("no-effect", sentence, command)]
