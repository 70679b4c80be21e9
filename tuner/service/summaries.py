"""Summaries of studies for people: a trial that no worker trains is *waiting*, or *paused*."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tuner.analysis.compared import Compared, compare_optimizers
from tuner.analysis.confirmed import Confirmed, summarize_confirmation
from tuner.analysis.summary import StudySummary, summarize
from tuner.domain.search import COMPARE
from tuner.domain.states import StudyState
from tuner.domain.trials import Outcome, TrialRecord, tell_waiting
from tuner.errors import StorageError, TunerError, UnavailableError
from tuner.service.liveness import is_dead
from tuner.store import Database, StudyHandle, read_records
from tuner.store.companions import find_companion
from tuner.store.control import read_state
from tuner.store.damage import warn_of_damage
from tuner.store.leases.budget import read_elapsed_s, read_exhausted
from tuner.store.leases.charges import read_used
from tuner.store.leases.rows import read_unfinished
from tuner.store.plans import read_plans
from tuner.store.records import read_some


def read_summary(database: Database, study: StudyHandle) -> StudySummary:
    """Returns the summary of a study; trials that no worker trains count as waiting or paused.

    Its trials come without their evaluations, which it does not need.
    """
    wall_s, worker_s = read_elapsed_s(database, study)
    summary = summarize(
        study.name,
        study.spec,
        read_shown(database, study),
        storage=database.name,
        wall_s=wall_s,
        worker_s=worker_s,
        state=read_shown_state(database, study),
        plans=read_plans(database, study).values(),
        exhausted=read_exhausted(database, study),
        used=read_used(database, study),
        confirmed=read_confirmed(database, study),
    )
    return replace(summary, compared=_read_compared(database, study, summary))


def _read_compared(
    database: Database, study: StudyHandle, summary: StudySummary
) -> Compared | None:
    """Returns the comparison of a study's optimizers; None of a study that compares none."""
    if summary.spec.search.mode != COMPARE:
        return None
    bests = [row.best_trial for row in summary.optimizers if row.best_trial is not None]
    companion = find_readable_companion(database, study)
    return compare_optimizers(
        summary,
        curves=read_some(database, study, bests),
        runs=[] if companion is None else read_records(database, companion),
    )


_CURVES = 2000
"""The trials whose evaluations advice looks at, at most: more would tell no more."""


def read_results(database: Database, study: StudyHandle) -> StudySummary:
    """Returns the summary of a study with the importance of its choices, and with advice.

    It reads the evaluations of trials, which :func:`read_summary` does without.
    """
    # They compute, and only reports need them.
    from tuner.analysis.advice.rules import advise  # noqa: PLC0415
    from tuner.analysis.importance import measure_importance  # noqa: PLC0415

    summary = read_summary(database, study)
    if study.spec.confirmation is not None:
        return summary
    # Complete trials first: others are compared with them.
    ended = sorted(summary.records, key=lambda r: (r.outcome is not Outcome.COMPLETE, r.number))
    chosen = [record.number for record in ended if record.outcome is not Outcome.FAILED][:_CURVES]
    importance = measure_importance(summary.spec, summary.records)
    advice = advise(summary, read_some(database, study, sorted(chosen)), importance)
    return replace(summary, importance=importance, advice=advice)


def find_readable_companion(database: Database, study: StudyHandle) -> StudyHandle | None:
    """Returns the study that confirms another one; one that cannot be read is none, with a warning.

    Raises:
        UnavailableError: If the database is away.
    """
    try:
        return find_companion(database, study)
    except UnavailableError:
        raise
    except TunerError as error:
        warn_of_damage(f"The confirmation of {study.name!r} is left out", str(error))
        return None


def read_confirmed(database: Database, study: StudyHandle) -> Confirmed | None:
    """Returns how a study's finalists did on fresh seeds; None until its search is over."""
    companion = find_readable_companion(database, study)
    if companion is None or companion.waits:
        return None
    records = read_shown(database, companion)
    return summarize_confirmation(companion.name, companion.spec, records)


def read_shown_state(database: Database, study: StudyHandle) -> StudyState:
    """Returns a study's state; one that cannot be read counts as stopped, with a warning."""
    try:
        return read_state(database, study)
    except UnavailableError:
        raise
    except StorageError as error:
        warn_of_damage(f"The study {study.name!r} counts as stopped", str(error))
        return StudyState.STOPPED


def read_shown(database: Database, study: StudyHandle) -> list[TrialRecord]:
    """Returns a study's trials without evaluations; if nobody trains one, it waits or is paused."""
    return show_waiting(database, study, read_records(database, study, evaluations=False))


def show_waiting(
    database: Database, study: StudyHandle, records: Iterable[TrialRecord]
) -> list[TrialRecord]:
    """Returns trials, with those marked as waiting or paused that no worker trains now."""
    unfinished = read_unfinished(database, study, is_dead)
    return tell_waiting(records, unfinished.held, unfinished.paused)
