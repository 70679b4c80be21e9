"""Rules about the ranking of optimizers: whether all were compared, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tuner.analysis.advice.commands import join, search_again
from tuner.analysis.advice.evidence import Advice, Evidence
from tuner.analysis.finalists import plan_confirmation
from tuner.analysis.summary import SETTLED_FROM, StudySummary
from tuner.domain.confirmation import Confirm
from tuner.domain.lengths import share_trained
from tuner.domain.names import name_some
from tuner.domain.objective import is_reached
from tuner.domain.search import COMPARE
from tuner.domain.states import StudyState
from tuner.domain.trials import Outcome, TrialRecord

NOISE_RUNS = 2
"""Runs that repeat a configuration, at least, from which noise is estimated: one alone tells a
standard deviation within a factor of thirty."""

_USUAL_TOP = 3
"""Best configurations that are advised to run again where the study's file says none."""

_MOST_COST = 100.0
"""The most of a search's training that a confirmation may be given."""

_MOST_SEEDS = 50
"""Planned seeds from which on no more are advised: `tuner study confirm` takes up to a hundred."""


def unsettled(evidence: Evidence) -> list[Advice]:
    """Advises more trials where a study has had too few to rank all its optimizers."""
    summary, budget = evidence.summary, evidence.summary.spec.budget
    count = len(summary.optimizers)
    if count < 2 or evidence.goes_on or not 0 < evidence.compared < SETTLED_FROM * count:
        return []
    sentence = (
        f"{count} optimizers share {evidence.compared} finished trials; a ranking takes "
        f"{SETTLED_FROM} of each."
    )
    if budget.full_trials is not None or summary.state is not StudyState.RUNNING:
        return _search_alone(evidence, "unsettled", sentence)
    finished = (row.complete + row.pruned + row.diverged for row in summary.optimizers)
    missing = sum(max(0, SETTLED_FROM - own) for own in finished)
    trials = sum(summary.counts.values()) + missing
    if summary.spec.search.mode == COMPARE:  # which shares them out equally
        trials = math.ceil(trials / count) * count
    command = join("study", "run", summary.name, "--trials", str(trials))
    return [Advice("unsettled", sentence, command)]


def starved(evidence: Evidence) -> list[Advice]:
    """Advises a search of those optimizers alone that the sampler left with too few trials."""
    summary = evidence.summary
    names = [row.optimizer for row in summary.optimizers if not row.settled]
    enough = evidence.compared >= SETTLED_FROM * len(summary.optimizers)
    if len(summary.optimizers) < 2 or evidence.goes_on or not enough or not names:
        return []
    sentence = (
        f"Of {evidence.compared} finished trials, fewer than {SETTLED_FROM} "
        f"{'each ' if len(names) > 1 else ''}were of {name_some(names)}: too few to tell."
    )
    return _search_alone(evidence, "starved", sentence)


def _search_alone(evidence: Evidence, kind: str, sentence: str) -> list[Advice]:
    """Returns the advice to search the optimizers alone that are not settled."""
    summary = evidence.summary
    names = [row.optimizer for row in summary.optimizers if not row.settled]
    share = math.ceil(summary.spec.budget.trials / len(summary.optimizers))
    trials = len(names) * max(2 * SETTLED_FROM, share)
    command = search_again(summary.spec, "more", {"budget.trials": trials}, optimizers=names)
    return [Advice(kind, sentence, command)] if command else []


def noise(evidence: Evidence) -> list[Advice]:
    """Advises fresh seeds where the leader is no further ahead than runs lie apart by chance."""
    summary = evidence.summary
    if summary.confirmed is not None:
        return _doubt_tie(evidence)
    ranked = [row for row in summary.optimizers if row.best_value is not None]
    if len(ranked) < 2 or evidence.goes_on:
        return []
    study = summary.spec.study
    leader, second = ranked[0].best_value or 0.0, ranked[1].best_value or 0.0
    deviation = _spread(summary.repeats)
    known = study.target is None or is_reached(study, max(leader, second))
    gap, chance = abs(leader - second), math.sqrt(2) * (deviation or 0.0)
    if not known or gap >= chance:
        return []
    sentence = (
        f"{ranked[0].optimizer} is {gap:.2g} ahead of {ranked[1].optimizer} in one run each; two "
        f"runs of one configuration lie {chance:.2g} apart (standard deviation)."
    )
    return [Advice("noise", sentence, _confirm(summary))]


def _doubt_tie(evidence: Evidence) -> list[Advice]:
    """Advises more seeds where finalists are tied on all that were planned."""
    confirmed = evidence.summary.confirmed
    if confirmed is None or not confirmed.race.settled:
        return []
    verdict = confirmed.verdict
    if len(verdict.tied) < 2 or not verdict.seeds == verdict.planned <= _MOST_SEEDS:
        return []
    arms = {arm.trial: arm for arm in verdict.arms}
    one, two = (arms[trial] for trial in verdict.tied[:2])
    gap = abs((one.mean or 0.0) - (two.mean or 0.0))
    deviation = math.hypot(one.deviation or 0.0, two.deviation or 0.0)
    if one.mean is None or two.mean is None or gap >= deviation:
        return []
    sentence = (
        f"{confirmed.tell(one.trial)} and {confirmed.tell(two.trial)} lie {gap:.2g} apart on "
        f"average, and two runs of them {deviation:.2g} (standard deviation): {verdict.seeds} "
        "seeds do not tell them apart."
    )
    seeds = 2 * verdict.planned
    cost = _cost_of(evidence.summary, confirmed.confirmation.study, seeds)
    if cost is None:
        return []
    delete = join("study", "delete", confirmed.name, "--yes")
    again = _confirm(evidence.summary, "--seeds", str(seeds), "--cost", str(cost))
    return [Advice("noise", sentence, f"{delete} && {again}")]


def _cost_of(summary: StudySummary, uuid: str, seeds: int) -> int | None:
    """Returns the ``--cost`` that leaves training for so many seeds; None where none does."""
    own = summary.spec.confirm
    freely = Confirm(top=own.top or _USUAL_TOP, seeds=seeds, cost=_MOST_COST)
    plan = plan_confirmation(summary, uuid, freely)
    searched = sum(share_trained(record.attributes) for record in summary.records)
    if plan is None or plan.seeds < seeds or not searched:
        return None
    return max(2, math.ceil(plan.runs / searched))


def _confirm(summary: StudySummary, *options: str) -> str:
    """Returns the command that confirms a study, also one whose file says that none is."""
    top = () if summary.spec.confirm.top else ("--top", str(_USUAL_TOP))
    return join("study", "confirm", summary.name, *top, *options)


def _spread(repeats: Sequence[Sequence[TrialRecord]]) -> float | None:
    """Returns the standard deviation of runs of one configuration, None where too few tell it."""
    squares, freedom = 0.0, 0
    for repeated in repeats:
        complete = [record for record in repeated if record.outcome is Outcome.COMPLETE]
        values = [record.value for record in complete if record.value is not None]
        if len(values) > 1:
            mean = math.fsum(values) / len(values)
            squares += math.fsum((value - mean) ** 2 for value in values)
            freedom += len(values) - 1
    return math.sqrt(squares / freedom) if freedom >= NOISE_RUNS else None
