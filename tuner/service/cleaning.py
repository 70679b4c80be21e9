"""The room that files of studies hold on disk for nobody: how much it is, and its release.

That is the checkpoints of finished studies, the folders of their trials where a command trained
them, and all files of studies that are gone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tuner.domain.states import Activity
from tuner.errors import TunerError, UnavailableError
from tuner.service.folders import remove_folder, studies_folder
from tuner.service.liveness import is_dead
from tuner.service.ownership import Owner, find_folder, find_owner
from tuner.service.worker.checkpoints import find_checkpoints, sweep
from tuner.store import Database, Studies, StudyHandle

_FINISHED = (Activity.DONE, Activity.STOPPED)


@dataclass(frozen=True)
class Holding:
    """The files on disk that belong to the trials of one study.

    Attributes:
        study: The study's name.
        activity: Whether it is trained, idle, paused, stopped or done.
        files: How many checkpoints there are.
        folders: How many folders of trials that a command trained.
        size: The bytes of both.
        freed: The bytes that have been freed.
        is_free: Whether the study is over, so that no trial goes on from any of it.
    """

    study: str
    activity: Activity
    files: int
    folders: int
    size: int
    freed: int
    is_free: bool


def read_holdings(
    database: Database, names: Sequence[str] = (), *, frees: bool = False
) -> list[Holding]:
    """Returns the studies whose trials hold files in folders of this database, the largest first.

    A study is finished if it is done, or was stopped and no trial of it waits. Its trials have
    ended, so none of them goes on from a checkpoint, or from what its command left in its folder.

    Args:
        database: The database.
        names: The studies to look at; none for all.
        frees: Whether to delete them where the study is finished.

    Raises:
        NotFoundError: If there is no study of such a name.
    """
    studies = Studies(database)
    found = [studies.find(name) for name in names] if names else list(_read_all(studies))
    holdings = []
    for study in found:
        folder, ours = find_folder(database, study)
        before = find_checkpoints(folder) if ours else []
        trials = _find_trials(folder, study) if ours else []
        if not before and not trials:
            continue
        overview = studies.look(study, is_dead)
        unfinished = overview.running + overview.waiting + overview.paused
        is_free = overview.activity in _FINISHED and not unfinished
        size = _measure(before) + _measure_folders(trials)
        if is_free and frees:
            sweep(folder, database, study)
            for trial in trials:
                remove_folder(trial)
        freed = size - _measure(find_checkpoints(folder)) - _measure_folders(trials)
        holdings.append(
            Holding(study.name, overview.activity, len(before), len(trials), size, freed, is_free)
        )
    return sorted(holdings, key=lambda holding: (-holding.size, holding.study))


@dataclass(frozen=True)
class Remnant:
    """The folder of a study that is gone from the database.

    Attributes:
        folder: Its path.
        files: How many files are in it.
        size: Their bytes.
        freed: The bytes that have been freed.
        is_free: Whether it is known to be this database's, so that it serves nobody.
        reason: Why it is, or is not.
    """

    folder: str
    files: int
    size: int
    freed: int
    is_free: bool
    reason: str


_FOLDER = re.compile(r"(?P<uuid>[0-9a-f]{32})(?:-\d{1,4})?")
"""The name of a study's folder; see :mod:`tuner.service.ownership`."""


def read_remnants(database: Database) -> list[Remnant]:
    """Returns the folders, where this database has its own, of studies that are not in it.

    One is free only if it is marked as this database's, and this database remembers workers of its
    study. The mark alone proves nothing: it tells a SQLite database by its place, and another one
    may have been there before.
    """
    home = studies_folder(database.url)
    # Listed first: a study is in the database before it has a folder.
    found = {path: named["uuid"] for path in _list(home) if (named := _FOLDER.fullmatch(path.name))}
    traces = Studies(database).trace(set(found.values()))
    remnants = []
    for folder, uuid in found.items():
        if traces.get(uuid):
            continue
        owner = find_owner(database, folder, uuid)
        if owner is Owner.OTHER:
            continue  # its study is where it belongs
        is_free = owner is Owner.THIS and uuid in traces
        files = _find_files(folder)
        reason = _tell(owner, is_known=uuid in traces)
        remnants.append(Remnant(str(folder), len(files), _measure(files), 0, is_free, reason))
    return sorted(remnants, key=lambda remnant: (-remnant.size, remnant.folder))


def free(remnants: Iterable[Remnant]) -> list[Remnant]:
    """Deletes the folders that are free, and returns all of them with what has been freed."""
    freed = []
    for remnant in remnants:
        if remnant.is_free:
            folder = Path(remnant.folder)
            before = _measure(_find_files(folder))
            remove_folder(folder)
            remnant = replace(remnant, freed=before - _measure(_find_files(folder)))  # noqa: PLW2901
        freed.append(remnant)
    return freed


def _find_trials(folder: Path, study: StudyHandle) -> list[Path]:
    """Returns the folders of a command's trials; those of loops may hold what their users keep."""
    home = folder / "trials"
    if study.spec.study.command is None or folder.is_symlink() or home.is_symlink():
        return []
    return _list(home)


def _measure_folders(folders: Iterable[Path]) -> int:
    return sum(_measure(_find_files(folder)) for folder in folders)


def _find_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]


def _list(home: Path) -> list[Path]:
    """Returns the folders in a folder, links left out; none if it cannot be read."""
    try:
        return [path for path in home.iterdir() if path.is_dir() and not path.is_symlink()]
    except OSError:
        return []


def _tell(owner: Owner, *, is_known: bool) -> str:
    """Returns why the folder of a study that is gone can be freed, or cannot."""
    if owner is not Owner.THIS:
        return f"it is of {owner.value}"
    if is_known:
        return "its study was in this database, and has been deleted"
    return "nothing in this database tells of its study: another one may have been in its place"


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
