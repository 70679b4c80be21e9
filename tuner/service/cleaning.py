"""The room that checkpoints of finished studies hold on disk: how much it is, and its release."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuner.domain.states import Activity
from tuner.errors import TunerError, UnavailableError
from tuner.service.liveness import is_dead
from tuner.service.ownership import find_folder
from tuner.service.worker.checkpoints import find_checkpoints, sweep
from tuner.store import Database, Studies, StudyHandle

_FINISHED = (Activity.DONE, Activity.STOPPED)


@dataclass(frozen=True)
class Holding:
    """The checkpoints of one study.

    Attributes:
        study: The study's name.
        activity: Whether it is trained, idle, paused, stopped or done.
        files: How many checkpoints there are.
        size: Their bytes.
        freed: The bytes that have been freed.
        is_free: Whether the study is over, so that its checkpoints serve nobody.
    """

    study: str
    activity: Activity
    files: int
    size: int
    freed: int
    is_free: bool


def read_holdings(
    database: Database, names: Sequence[str] = (), *, frees: bool = False
) -> list[Holding]:
    """Returns the studies that hold checkpoints in folders of this database, the largest first.

    A study is finished if it is done, or was stopped and no trial of it waits. Its trials have
    ended, so none of them goes on from a checkpoint.

    Args:
        database: The database.
        names: The studies to look at; none for all.
        frees: Whether to delete the checkpoints of finished studies.

    Raises:
        NotFoundError: If there is no study of such a name.
    """
    studies = Studies(database)
    found = [studies.find(name) for name in names] if names else list(_read_all(studies))
    holdings = []
    for study in found:
        folder, ours = find_folder(database, study)
        before = find_checkpoints(folder) if ours else []
        if not before:
            continue
        overview = studies.look(study, is_dead)
        unfinished = overview.running + overview.waiting + overview.paused
        is_free = overview.activity in _FINISHED and not unfinished
        size = _measure(before)
        if is_free and frees:
            sweep(folder, database, study)
        left = find_checkpoints(folder)
        freed = size - _measure(left)
        holdings.append(Holding(study.name, overview.activity, len(before), size, freed, is_free))
    return sorted(holdings, key=lambda holding: (-holding.size, holding.study))


def _read_all(studies: Studies) -> Iterable[StudyHandle]:
    """Yields all studies that can be read."""
    for overview in studies.list(is_dead):
        try:
            yield studies.find(overview.name)
        except UnavailableError:
            raise
        except TunerError:  # a damaged one, which the list of studies tells of
            continue


def _measure(files: Iterable[Path]) -> int:
    """Returns the bytes of files; one that is gone by now has none."""
    size = 0
    for file in files:
        try:
            size += file.lstat().st_size
        except OSError:
            continue
    return size
