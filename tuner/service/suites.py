"""Suites: the studies that belong to one, how far each is, and the results of all."""

from __future__ import annotations

import shlex

from tuner.analysis.suite import SuiteSummary, WorkloadResult, measure_workload, summarize_suite
from tuner.analysis.summary import StudySummary
from tuner.domain.names import suggest
from tuner.domain.states import StudyState
from tuner.domain.suite import SuitePlan
from tuner.errors import NotFoundError
from tuner.service.summaries import read_confirmed, read_summary
from tuner.store import Database, Studies, StudyHandle, read_records
from tuner.store.companions import find_companion
from tuner.store.leases.budget import is_done
from tuner.store.suites import find_members, find_studies, note_suite


def find_plan(database: Database, name: str) -> SuitePlan:
    """Returns what a suite was scored by when it was last run.

    Raises:
        NotFoundError: If no study of the database belongs to a suite of this name.
    """
    members = find_members(database)
    plans = {member.plan.name: member.plan for member in members}
    if name not in plans:
        known = suggest(name, plans) if plans else "it has none: start one with 'tuner suite run'"
        raise NotFoundError(f"{database.name} has no suite {name!r}: {known}")
    return plans[name]


def renew_notes(database: Database, plan: SuitePlan) -> None:
    """Notes in all studies of a suite what it is scored by, which may have changed in its file.

    Args:
        database: The database.
        plan: What the suite is scored by now.
    """
    for workload, study in find_studies(database, plan.name).items():
        note_suite(database, study, plan, workload)


def find_study_name(database: Database, suite: str, workload: str, usual: str) -> str | None:
    """Returns the name of the study of a suite's workload, or None if there is no such study.

    Args:
        database: The database.
        suite: The suite's name.
        workload: The workload's name in it.
        usual: The name that the study has unless it was renamed.
    """
    study = find_studies(database, suite).get(workload) or Studies(database).get(usual)
    return None if study is None else study.name


def read_suite_summary(database: Database, plan: SuitePlan) -> SuiteSummary:
    """Returns the results of a suite, as far as its studies have come.

    Args:
        database: The database that holds its studies.
        plan: What it is scored by.
    """
    studies = find_studies(database, plan.name)
    return summarize_suite(
        plan, [_read_workload(database, plan, name, studies.get(name)) for name in plan.targets]
    )


def is_complete(database: Database, study: StudyHandle) -> bool:
    """Tells whether a study of a suite needs no more training: its finalists have all run again."""
    if not is_done(database, study):
        return False
    confirmed = read_confirmed(database, study)
    return confirmed is not None and confirmed.race.settled


def _read_workload(
    database: Database, plan: SuitePlan, name: str, study: StudyHandle | None
) -> WorkloadResult:
    if study is None:
        return WorkloadResult(name, missing="it has no study yet")
    missing = _tell_missing(read_summary(database, study))
    companion = find_companion(database, study)
    confirmation = None if companion is None else companion.spec.confirmation
    if missing or companion is None or confirmation is None:
        return WorkloadResult(name, study.name, study.spec, missing)
    runs = read_records(database, companion)
    return measure_workload(name, study.name, study.spec, confirmation, runs, plan)


def _tell_missing(summary: StudySummary) -> str:
    """Returns what the score on a workload still lacks, in a few words; empty if nothing."""
    trials, confirmed = (
        f"{summary.finished} of {summary.spec.budget.trials} trials",
        summary.confirmed,
    )
    if summary.state is StudyState.STOPPED and summary.finished < summary.spec.budget.trials:
        return f"its study was stopped after {trials}"
    if confirmed is None:
        return f"{trials} are over, and none has run again on fresh seeds"
    if not confirmed.race.settled:
        return f"{confirmed.runs} of {confirmed.confirmation.runs} runs on fresh seeds are over"
    began = confirmed.began_at
    newer = [r for r in summary.records if began and r.started_at and r.started_at > began]
    if newer:
        delete = shlex.join(("tuner", "study", "delete", confirmed.name))
        return f"{len(newer)} trials are newer than its runs on fresh seeds: '{delete}', run again"
    return ""
