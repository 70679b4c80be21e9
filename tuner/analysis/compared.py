"""The comparison of a study's optimizers as reports show it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tuner.analysis.confirmed import Confirmed
from tuner.analysis.finalists import USUAL
from tuner.analysis.runs import find_racing
from tuner.analysis.speed import Speed, Target, choose_target, measure_speed
from tuner.analysis.summary import StudySummary
from tuner.analysis.tuning import Tuning, describe_tunings
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.objective import sign_of
from tuner.domain.search import COMPARE
from tuner.domain.spec import StudySpec
from tuner.domain.trials import TrialRecord


@dataclass(frozen=True)
class Undertuned:
    """An optimizer that lost to another one, of which it is a generalisation.

    Tuned well enough it cannot be worse (Choi et al., "On Empirical Comparisons of Optimizers for
    Deep Learning", 2019).

    Attributes:
        optimizer: Its name.
        special: The name of the other one.
        confirmed: Whether it lost on fresh seeds, and not by the values of the search alone.
    """

    optimizer: str
    special: str
    confirmed: bool


@dataclass(frozen=True)
class Compared:
    """A study that compares optimizers, so far.

    Attributes:
        tunings: The tuning of each optimizer, in the order of the verdict, or else the best first.
        target: The metric that all were to reach; None before one has a value.
        speeds: How fast each reached it, in the same order.
        beats: For each optimizer in the race those that it beats, by the verdict so far; None where
            none has run again. One that is not tuned enough is not said to be beaten by what it
            generalises.
        undertuned: The optimizers that were not tuned enough.
    """

    tunings: tuple[Tuning, ...]
    target: Target | None
    speeds: tuple[Speed, ...]
    beats: Mapping[str, tuple[str, ...]] | None
    undertuned: tuple[Undertuned, ...]


def compare_optimizers(
    summary: StudySummary, curves: Iterable[TrialRecord], runs: Iterable[TrialRecord]
) -> Compared | None:
    """Returns the comparison of a study's optimizers; None of a study that compares none.

    Args:
        summary: The study.
        curves: The best trial of each optimizer, with its evaluations.
        runs: The trials of the study that confirms it, with their evaluations.
    """
    spec, confirmed = summary.spec, summary.confirmed
    if spec.search.mode != COMPARE:
        return None
    order = _order(summary)
    tunings = describe_tunings(spec, order, summary.records)
    seeds = confirmed is not None and confirmed.race.settled
    if confirmed is not None and seeds:
        own = find_racing(confirmed.confirmation, confirmed.spec, runs)
    else:
        own = {record.optimizer: [record] for record in curves}
    target = choose_target(spec, own, USUAL, seeds=seeds)
    return Compared(
        tunings=tunings,
        target=target,
        speeds=tuple(measure_speed(spec, name, own.get(name, []), target) for name in order)
        if target
        else (),
        beats=None if confirmed is None else _claim_beaten(confirmed),
        undertuned=tuple(_find_undertuned(spec, tunings, confirmed)),
    )


def _order(summary: StudySummary) -> list[str]:
    """Returns the optimizers: finalists in the order of their verdict, the others by value."""
    confirmed = summary.confirmed
    first = []
    if confirmed is not None and confirmed.race.settled:
        first = [confirmed.configs[arm.trial].optimizer for arm in confirmed.verdict.arms]
    return list(dict.fromkeys([*first, *(row.optimizer for row in summary.optimizers)]))


def _list_beaten(confirmed: Confirmed) -> dict[str, tuple[str, ...]]:
    """Returns the optimizers that each finalist beats, the best first."""
    names = [confirmed.configs[arm.trial].optimizer for arm in confirmed.verdict.arms]
    pairs = {
        (confirmed.configs[pair.better].optimizer, confirmed.configs[pair.worse].optimizer)
        for pair in confirmed.verdict.comparisons
        if pair.beats
    }
    return {name: tuple(other for other in names if (name, other) in pairs) for name in names}


def _claim_beaten(confirmed: Confirmed) -> dict[str, tuple[str, ...]]:
    """Returns the same without those that generalise it: tuned well enough they cannot be worse."""
    return {
        name: tuple(other for other in beaten if name not in generalised_by(other))
        for name, beaten in _list_beaten(confirmed).items()
    }


def _find_undertuned(
    spec: StudySpec, tunings: Iterable[Tuning], confirmed: Confirmed | None
) -> Iterable[Undertuned]:
    """Yields the optimizers that lost to one that they generalise.

    Where both have run on fresh seeds, only their verdict counts; before, any worse value.
    """
    tunings = list(tunings)
    beats = _list_beaten(confirmed) if confirmed is not None and confirmed.race.settled else {}
    sign = sign_of(spec.study.ranking)
    costs = {t.optimizer: None if t.best_value is None else sign * t.best_value for t in tunings}
    for tuning in tunings:
        name, cost = tuning.optimizer, costs[tuning.optimizer]
        for special in sorted(generalised_by(name) & costs.keys()):
            if name in beats and special in beats:
                if name in beats[special]:
                    yield Undertuned(name, special, confirmed=True)
                continue
            rival = costs[special]
            if rival is not None and tuning.trials and (cost is None or rival < cost):
                yield Undertuned(name, special, confirmed=False)


def generalised_by(optimizer: str) -> set[str]:
    """Returns the optimizers that one generalises, and those that these generalise.

    >>> sorted(generalised_by("lookahead(momentum)"))
    ['momentum', 'sgd']
    """
    direct = OPTIMIZERS[optimizer].generalises
    return {*direct, *(name for special in direct for name in generalised_by(special))}
