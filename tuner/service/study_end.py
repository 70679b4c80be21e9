"""The end of a study: nothing is left to train of it, and nobody works on it any more."""

from __future__ import annotations

from tuner.service.confirmation import find_current
from tuner.service.liveness import is_dead
from tuner.store import Database, StudyHandle
from tuner.store.leases.budget import is_done
from tuner.store.leases.workers import read_workers


def is_at_end(database: Database, study: StudyHandle) -> bool:
    """Tells whether a study is over, and its confirmation, and no worker is left.

    Args:
        database: The database that holds both.
        study: The study.

    Raises:
        NotFoundError: If it has been deleted.
        UnavailableError: If the database is away.
    """
    current = find_current(database, study)
    if not is_done(database, current):
        return False
    # A study that is done and has workers still may be about to be confirmed.
    return not any(row.state.is_alive for row in read_workers(database, current, is_dead))
