"""The summary of a study, read from the database."""

from __future__ import annotations

from tuner.analysis.summary import StudySummary, summarize
from tuner.store import Database, StudyHandle, read_records
from tuner.store.control import read_state
from tuner.store.ledger import read_elapsed_s


def read_summary(database: Database, study: StudyHandle) -> StudySummary:
    """Returns what a study has found so far."""
    wall_s, worker_s = read_elapsed_s(database, study)
    return summarize(
        study.name,
        study.spec,
        read_records(database, study),
        storage=database.name,
        wall_s=wall_s,
        worker_s=worker_s,
        state=read_state(database, study),
    )
