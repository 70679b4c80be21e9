"""The finalists of a study: the configurations that are run again to see which is best."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tuner.analysis.summary import StudySummary
from tuner.domain.confirmation import (
    HEAT_SEEDS,
    LEAST_SEEDS,
    MOST_FINALISTS,
    PER_OPTIMIZER,
    Confirm,
    Confirmation,
    Finalist,
)
from tuner.domain.lengths import share_trained, split_by_length
from tuner.domain.objective import is_missed, sign_of
from tuner.domain.search import COMPARE
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Outcome, TrialRecord, default_proposal
from tuner.domain.warm_start import OwnValue

USUAL = "adamw"
"""The optimizer whose own defaults are the usual choice, which a winner has to beat."""

_LEAST_FINALISTS = 3
"""The winner, the runner-up and the usual choice."""


def plan_confirmation(summary: StudySummary, uuid: str, confirm: Confirm) -> Confirmation | None:
    """Returns the finalists of a study and how often they may run; None without a complete trial.

    The winner comes first, then the best of the next optimizer (of a study of one optimizer, its
    next configuration), then the usual choice's defaults, and then the best of the others: as many
    as can have five seeds each for the training that the confirmation may take. Those of a
    comparison are the three best of each optimizer, of which heats choose one to race.

    Args:
        summary: The study.
        uuid: Its UUID.
        confirm: How it is to be confirmed.
    """
    ranked = _rank(summary.spec, summary.records)
    if not ranked or not confirm.top:
        return None
    compares = summary.spec.search.mode == COMPARE
    searched = sum(share_trained(record.attributes) for record in summary.records)
    may_run = math.floor(confirm.cost * searched)
    if compares:
        finalists = _choose_to_compare(summary.spec, ranked, may_run)
        racing = len({finalist.params["optimizer"] for finalist in finalists})
        heats = HEAT_SEEDS * len(finalists) if racing < len(finalists) else 0
    else:
        finalists = _choose(summary.spec, summary.records, ranked, confirm.top)
        finalists = finalists[: max(_LEAST_FINALISTS, may_run // LEAST_SEEDS)]
        racing, heats = len(finalists), 0
    # Error is kept for the last seed, so no more are planned than there is training for.
    seeds = min(confirm.seeds, max(LEAST_SEEDS, (may_run - heats) // racing))
    return Confirmation(
        study=uuid,
        finalists=tuple(finalists),
        seeds=seeds,
        runs=heats + racing * seeds,
        compares=compares,
    )


def _rank(spec: StudySpec, records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Returns the complete trials of full length, the best first; not those short of a target."""
    complete, _ = split_by_length(records)
    sign = sign_of(spec.study.ranking)
    valued = [
        (sign * record.value, record.number, record)
        for record in complete
        if record.value is not None and not is_missed(spec.study, record.value)
    ]
    return [record for *_, record in sorted(valued, key=lambda item: item[:2])]


def _choose_to_compare(
    spec: StudySpec, ranked: Sequence[TrialRecord], may_run: int
) -> list[Finalist]:
    """Returns the best trials of every optimizer: three of each, or fewer if heats cost too much.

    Args:
        spec: The study.
        ranked: Its complete trials, the best first.
        may_run: Runs that the confirmation may take, heats and five seeds of each optimizer.
    """
    names = list(dict.fromkeys(record.optimizer for record in ranked))
    count = len(names)
    affordable = (may_run - LEAST_SEEDS * count) // (HEAT_SEEDS * count)
    each = max(1, min(PER_OPTIMIZER, affordable, MOST_FINALISTS // count))
    found: list[Finalist] = []
    for name in names[:MOST_FINALISTS]:
        own = [record for record in ranked if record.optimizer == name][:each]
        found += [_to_finalist(spec, record, ranked[0], protected=True) for record in own]
    return found


def _choose(
    spec: StudySpec, records: Sequence[TrialRecord], ranked: Sequence[TrialRecord], top: int
) -> list[Finalist]:
    """Returns the finalists in the order in which they are taken; no configuration is twice."""
    bests: dict[str, TrialRecord] = {}
    for record in ranked:
        bests.setdefault(record.optimizer, record)
    leader, *others = ranked
    runner_up = next((r for r in bests.values() if r is not leader), next(iter(others), None))
    usual = _find_usual(spec, records)
    first = [leader, *([runner_up] if runner_up else []), *([usual] if usual else [])]
    beside = [*ranked[:top], *list(bests.values())[:top]]
    beside.sort(key=ranked.index)
    found: list[Finalist] = []
    for record in [*first, *beside]:
        finalist = _to_finalist(spec, record, leader, protected=record in first)
        if all((finalist.params, finalist.own) != (f.params, f.own) for f in found):
            found.append(finalist)
    return found


def _find_usual(spec: StudySpec, records: Sequence[TrialRecord]) -> TrialRecord | None:
    """Returns the usual choice's own defaults as a trial; None if the study has no such choice."""
    if USUAL not in spec.space.optimizers:
        return None
    for record in records:
        is_usual = record.is_default and record.optimizer == USUAL
        if is_usual and record.outcome is Outcome.COMPLETE:
            return record
    return TrialRecord(_UNTRIED, Outcome.WAITING, default_proposal(spec, USUAL))


_UNTRIED = -1
"""The number of the usual choice's defaults, if no complete trial had them."""


def _to_finalist(
    spec: StudySpec, record: TrialRecord, leader: TrialRecord, *, protected: bool
) -> Finalist:
    known = spec.axes()
    params = {name: value for name, value in record.proposal.params.items() if name in known}
    # Defaults have no values of the training loop's own hyperparameters: they have the winner's.
    giver = record if record.own_axes else leader
    own = {
        name: OwnValue(value=giver.proposal.params.get(name), axis=axis)
        for name, axis in giver.own_axes.items()
    }
    return Finalist(trial=record.number, params=params, own=own, protected=protected)
