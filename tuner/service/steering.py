"""What people order of a study: it pauses, resumes, stops, may start more trials, is deleted."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tuner.domain.search import COMPARE, check_comparison
from tuner.domain.states import StudyState
from tuner.errors import SpecError
from tuner.service.folders import remove_folder
from tuner.service.liveness import is_dead
from tuner.service.ownership import find_folder
from tuner.service.summaries import find_readable_companion
from tuner.store import Database, Studies, StudyHandle
from tuner.store.control import ask_to_leave, set_state
from tuner.store.copies import copy_studies


def steer(database: Database, study: StudyHandle, state: StudyState) -> StudyState:
    """Pauses, resumes or stops a study, and with it the study that confirms it.

    Args:
        database: The database that holds it.
        study: The study.
        state: The state that it is to have.

    Returns:
        The state that it had.

    Raises:
        SpecError: If a study is to stop that confirms another one.
        NotFoundError: If it has been deleted.
    """
    stops = state is StudyState.STOPPED
    if stops and study.spec.confirmation is not None:
        raise SpecError(
            f"{study.name!r} confirms another study: a run that is stopped in the middle tells "
            f"nothing. Pause it, with 'tuner study pause {shlex.quote(study.name)}', or delete it."
        )
    before = set_state(database, study, state)
    # Looked for only now: no worker begins with it any more where the search is stopped.
    companion = find_readable_companion(database, study)
    if companion is not None and not companion.waits:
        # Its runs are saved, and its workers end: a run that ended early would count as lost.
        set_state(database, companion, StudyState.PAUSED if stops else state)
        if stops:
            ask_to_leave(database, companion)
    return before


def raise_trials(database: Database, study: StudyHandle, trials: int) -> StudyHandle:
    """Returns a study that may start so many trials; their number is never lowered.

    Args:
        database: The database that holds it.
        study: The study.
        trials: The number of trials.

    Raises:
        SpecError: If the study confirms another one, or compares optimizers and cannot share out
            so many.
        NotFoundError: If it has been deleted.
    """
    if study.spec.confirmation is not None:
        raise SpecError(f"{study.name!r} confirms another study, which says how many runs it has.")
    if study.spec.search.mode == COMPARE:
        try:
            budget = study.spec.budget.model_copy(update={"trials": trials})
            check_comparison(budget, study.spec.space.optimizers)
        except ValueError as error:
            raise SpecError(f"--trials {trials}: {error}.") from None
    return Studies(database).extend(
        study, lambda budget: {"trials": trials} if trials > budget.trials else {}
    )


def tell_trials(study: StudyHandle, trials: int) -> str:
    """Returns a line on what :func:`raise_trials` has come to.

    Args:
        study: The study that it returned.
        trials: The number that was asked for.
    """
    has = study.spec.budget.trials
    if has != trials:
        return f"Study {study.name!r} stays at {has} trials."
    return f"Study {study.name!r} now has a budget of {trials} trials"


@dataclass(frozen=True)
class Doomed:
    """A study that is to be deleted.

    Attributes:
        study: The study.
        trials: How many trials it has.
        told: Whether people are told of it: not of one that only waits to confirm another.
    """

    study: StudyHandle
    trials: int
    told: bool


def find_doomed(database: Database, study: StudyHandle) -> Sequence[Doomed]:
    """Returns a study and the one that confirms it, which are deleted together, that one first."""
    companion = find_readable_companion(database, study)
    count = Studies(database).count_trials
    doomed = [Doomed(study, count(study), told=True)]
    if companion is not None:
        told = not companion.waits
        doomed.insert(0, Doomed(companion, count(companion) if told else 0, told))
    return doomed


def copy_study(
    source: Database, study: StudyHandle, target: Database, name: str | None = None
) -> StudyHandle:
    """Copies a study, and the one that confirms it, into another database or under another name.

    Checkpoints and logs stay: a trial that waits starts over in the copy.

    Args:
        source: The database that holds it.
        study: The study.
        target: The database of the copy; it may be the same one.
        name: The name of the copy; None for the same.

    Raises:
        SpecError: If a worker trains it at the moment, it confirms another one, or there is a
            study of the name in the other database.
        StorageError: If a value of it is damaged; nothing is copied then.
    """
    name = name or study.name
    if study.spec.confirmation is not None:
        raise SpecError(f"The study {study.name!r} confirms another one: copy that one instead.")
    companion = find_readable_companion(source, study)
    both = [study] if companion is None else [study, companion]
    for each in both:
        if Studies(source).look(each, is_dead).running:
            raise SpecError(
                f"{each.name!r} is being trained: pause it first, with 'tuner study pause "
                f"{shlex.quote(study.name)}', and copy it once its trials are saved."
            )
    copies = {name: study}
    if companion is not None:
        ending = companion.name.removeprefix(study.name)
        copies[f"{name}{ending}" if ending != companion.name else companion.name] = companion
    return copy_studies(source, copies, target)[0]


def delete_study(database: Database, study: StudyHandle) -> Path | None:
    """Deletes a study with its trials, checkpoints and logs.

    Returns:
        Its folder if that stays, since another database uses it; else None.
    """
    folder, ours = find_folder(database, study)
    if Studies(database).delete(study) and ours:
        remove_folder(folder)
    return folder if not ours and folder.is_dir() else None
