"""The confirmation of a study: its finalists run again, as a study of its own.

That one, the companion, is made with the study, and waits until the search is over. Then the first
worker that sees it writes the finalists, and all of them go on with it.
"""

from __future__ import annotations

import contextlib
import math
import shlex

from tuner.analysis.finalists import plan_confirmation
from tuner.analysis.summary import StudySummary
from tuner.domain.confirmation import HEAT_SEEDS, Confirm, Confirmation
from tuner.domain.search import Search
from tuner.domain.spec import StudySpec
from tuner.domain.states import StudyState
from tuner.domain.study_file import parse_tables
from tuner.domain.warm_start import OFF
from tuner.errors import NotFoundError, SpecError
from tuner.service.summaries import find_readable_companion, read_summary
from tuner.store import Database, Studies, StudyHandle
from tuner.store.companions import begin, change_confirm, find_companion, find_confirmed
from tuner.store.control import read_state
from tuner.store.leases.budget import is_done

_ENDING = ".confirm"
_LONGEST = 200


LEAST_TRIALS = 30
"""Trials, and full trials where these are bounded, of a study that is confirmed by itself: the
least confirmation takes half as many."""


def confirms_itself(spec: StudySpec, confirm: Confirm) -> bool:
    """Tells whether a study is confirmed without being asked for it, once its search is over.

    So are studies with a budget of thirty trials and more, or full trials where these are bounded,
    unless ``confirm.top`` is 0.

    Args:
        spec: The study.
        confirm: How it would be confirmed.
    """
    size = min(spec.budget.trials, spec.budget.full_trials or spec.budget.trials)
    return spec.confirmation is None and confirm.top > 0 and size >= LEAST_TRIALS


def prepare_confirmation(
    database: Database, study: StudyHandle, confirm: Confirm | None = None
) -> StudyHandle | None:
    """Makes the companion of a study that is confirmed by itself, unless it has one.

    Args:
        database: The database that holds the study.
        study: The study, which may still be searched.
        confirm: How it is to be confirmed, unless that has begun; None for as it says itself.

    Returns:
        The companion; None if there is none.
    """
    if study.spec.confirmation is not None:
        return None
    companion = find_readable_companion(database, study)
    if companion is not None:
        if confirm is None or confirm == companion.spec.confirm or not companion.waits:
            return companion
        return change_confirm(database, companion, confirm)
    confirm = confirm or study.spec.confirm
    return _create(database, study, confirm) if confirms_itself(study.spec, confirm) else None


def find_next(database: Database, study: StudyHandle) -> StudyHandle | None:
    """Returns the study to train now: a study until its search is over, and then its companion.

    A companion begins here, if its study is confirmed by itself. It does not if somebody has
    stopped the search, or no trial is complete.

    Args:
        database: The database that holds the study.
        study: The study.

    Returns:
        One of the two; None if nothing is left to train.

    Raises:
        SpecError: If the study confirms another one, whose search goes on.
    """
    if study.waits:
        name = find_confirmed(database, study) or "that study"
        raise SpecError(
            f"{study.name!r} waits for the search of {name!r}: train that one, with "
            f"'tuner study run {shlex.quote(name)}', and this one follows by itself."
        )
    if not is_done(database, study):
        return study
    companion = find_readable_companion(database, study)
    if companion is not None and companion.waits:
        companion = _begin_by_itself(database, study, companion)
    if companion is None or is_done(database, companion) or _is_halted(database, study, companion):
        return None
    return companion


def find_current(database: Database, study: StudyHandle) -> StudyHandle:
    """Returns the companion of a study if that has begun and the search is over, else the study.

    Args:
        database: The database that holds the study.
        study: The study.
    """
    companion = find_readable_companion(database, study) if is_done(database, study) else None
    return study if companion is None or companion.waits else companion


def open_confirmation(database: Database, study: StudyHandle, confirm: Confirm) -> StudyHandle:
    """Returns the study that confirms another one, with its finalists; makes it if there is none.

    Args:
        database: The database that holds the study.
        study: The study, which is searched no more.
        confirm: How it is to be confirmed, if it has not been yet.

    Raises:
        DeniedError: If it has none, and the role may not create one.
        NotFoundError: If no trial of it is complete.
        SpecError: If it confirms another one itself, its search is not over, or none is to run
            again.
    """
    if study.spec.confirmation is not None:
        raise SpecError(f"The study {study.name!r} confirms another one: name that one instead.")
    companion = find_companion(database, study)
    if companion is not None and not companion.waits:
        return companion
    if not confirm.top:
        raise SpecError("confirm.top = 0: no configuration is to run again. Say how many: --top 3")
    summary = read_summary(database, study)
    confirmation = plan_confirmation(summary, study.uuid, confirm)
    if confirmation is None:
        raise NotFoundError(
            f"No trial of the study {study.name!r} is complete, so there is nothing to confirm."
        )
    if _is_searched(summary) and is_done(database, study):
        companion = companion or _create(database, study, confirm)
        begun = begin(database, study, companion, confirmation, stopped=True)
        if begun is not None:
            return begun
    name = shlex.quote(study.name)
    raise SpecError(
        f"The search of {study.name!r} is not over yet, and what is to come may be better: "
        f"finish it first, with 'tuner study run {name}', or end it as it is, with "
        f"'tuner study stop {name}'."
    )


def ask_confirmation(
    database: Database,
    study: StudyHandle,
    *,
    top: int | None = None,
    seeds: int | None = None,
    cost: float | None = None,
) -> tuple[StudyHandle, str]:
    """Returns the study that confirms another one, as :func:`open_confirmation` does.

    Args:
        database: The database that holds the study.
        study: The study, which is searched no more.
        top: How many of its best configurations run again; None for what it says, like the others.
        seeds: How many fresh seeds each gets at most.
        cost: The share of the search's training that it may take.

    Returns:
        The companion, and a line on what of this has no effect; empty if all has.

    Raises:
        SpecError: Also if a value is out of its range.
    """
    asked = {"top": top, "seeds": seeds, "cost": cost}
    given = {key: value for key, value in asked.items() if value is not None}
    if cost is not None and not math.isfinite(cost):
        raise SpecError(f"--cost {cost}: give a share of the search's training, such as 0.5.")
    companion, note = find_companion(database, study), ""
    if given and companion is not None and not companion.waits:
        note = (
            f"{', '.join(f'--{key}' for key in given)}: of no effect, since {study.name!r} has "
            "been confirmed already. To begin anew, delete the study that confirms it."
        )
    stored = (companion or study).spec.confirm.model_dump()
    confirm = parse_tables(Confirm, stored | given, origin="the confirmation")
    return open_confirmation(database, study, confirm), note


def _begin_by_itself(
    database: Database, study: StudyHandle, companion: StudyHandle
) -> StudyHandle | None:
    """Writes the finalists of a study that is confirmed by itself; returns its companion then."""
    confirm = companion.spec.confirm
    study = Studies(database).refresh(study)  # its budget may have changed
    if not confirms_itself(study.spec, confirm):
        return None
    summary = read_summary(database, study)
    if summary.state is not StudyState.RUNNING or not _is_searched(summary):
        return None
    confirmation = plan_confirmation(summary, study.uuid, confirm)
    return None if confirmation is None else begin(database, study, companion, confirmation)


def _is_searched(summary: StudySummary) -> bool:
    """Tells whether all trials of a study are over."""
    return len(summary.records) == summary.finished


def _is_halted(database: Database, study: StudyHandle, companion: StudyHandle) -> bool:
    """Tells whether a companion waits since somebody has stopped its study."""
    stopped = read_state(database, study) is StudyState.STOPPED
    return stopped and read_state(database, companion) is StudyState.PAUSED


def _create(database: Database, study: StudyHandle, confirm: Confirm) -> StudyHandle:
    """Creates the companion of a study; if its usual name is taken, by another."""
    names = (study.name[: _LONGEST - len(_ENDING)] + _ENDING, f"{_ENDING[1:]}-{study.uuid}")
    for name in names:
        if (found := find_companion(database, study)) is not None:
            return found  # another process was first
        with contextlib.suppress(SpecError):
            return Studies(database).create(_confirming(study, name, confirm))
    raise SpecError(f"There are studies {names[0]!r} and {names[1]!r} already: delete one.")


def announce(database: Database, companion: StudyHandle) -> str:
    """Returns a line that tells what the confirmation of a study costs at most.

    Args:
        database: The database that holds it.
        companion: The study that confirms, with its finalists.
    """
    confirmation = companion.spec.confirmation
    if confirmation is None:
        raise ValueError(f"{companion.name} confirms no study")
    name = find_confirmed(database, companion) or companion.name
    finalists, seeds = len(confirmation.finalists), confirmation.seeds
    who = f"{finalists} finalist{'s' * (finalists > 1)} on up to {seeds} fresh seeds each"
    if confirmation.compares:
        who = (
            f"{finalists} finalists, the best of each optimizer; {HEAT_SEEDS} fresh seeds choose "
            f"one of each, which then race on up to {seeds} others"
        )
    return f"Confirming {name!r}: {who}, at most {confirmation.runs} full trials."


def _confirming(study: StudyHandle, name: str, confirm: Confirm) -> StudySpec:
    """Returns the spec of a study that trains as another one and searches nothing."""
    # Of trials it has as many as there are runs, once they are planned.
    limits = {"trials": 1, "full_trials": None, "wall_time": None, "stop": "never"}
    spec = study.spec
    search = Search(
        sampler="random", pruner="none", portfolio=False, spare=0, warm_start=OFF,
        seed=spec.search.seed,
    )  # fmt: skip
    return spec.model_copy(
        update={
            "study": spec.study.model_copy(update={"name": name}),
            "budget": spec.budget.model_copy(update=limits),
            "search": search,
            "confirm": confirm,
            "warm_start": None,
            "confirmation": Confirmation(study=study.uuid),
        }
    )
