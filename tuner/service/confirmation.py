"""The confirmation of a study: its finalists run again, as a study of its own."""

from __future__ import annotations

import contextlib
import shlex

from tuner.analysis.finalists import plan_confirmation
from tuner.domain.confirmation import Confirm, Confirmation
from tuner.domain.search import Search
from tuner.domain.spec import StudySpec
from tuner.domain.states import StudyState
from tuner.domain.warm_start import OFF
from tuner.errors import NotFoundError, SpecError
from tuner.service.summaries import read_summary
from tuner.store import Database, Studies, StudyHandle
from tuner.store.companions import find_companion
from tuner.store.leases.budget import is_done

_ENDING = ".confirm"
_LONGEST = 200


LEAST_TRIALS = 30
"""Trials, and full trials where these are bounded, of a study that is confirmed by itself: the
least confirmation takes half as many."""


def is_due(database: Database, study: StudyHandle, confirm: Confirm) -> bool:
    """Tells whether a study that has ended is to be confirmed without being asked for it.

    So are studies with a budget of thirty trials and more, or full trials where these are bounded,
    that have a complete one, unless somebody has stopped them, or ``confirm.top`` is 0.

    Args:
        database: The database that holds the study.
        study: The study.
        confirm: How it would be confirmed.
    """
    spec = study.spec
    size = min(spec.budget.trials, spec.budget.full_trials or spec.budget.trials)
    if spec.confirmation is not None or not confirm.top or size < LEAST_TRIALS:
        return False
    summary = read_summary(database, study)
    over = len(summary.records) == summary.finished and is_done(database, study)
    return summary.state is StudyState.RUNNING and over and summary.best is not None


def open_confirmation(
    database: Database, study: StudyHandle, confirm: Confirm
) -> tuple[StudyHandle, bool]:
    """Returns the study that confirms another one, and whether it was made just now.

    Args:
        database: The database that holds the study.
        study: The study, which is searched no more.
        confirm: How it is to be confirmed, if it has not been yet.

    Raises:
        NotFoundError: If no trial of it is complete.
        SpecError: If it confirms another one itself, its search is not over, or none is to run
            again.
    """
    if study.spec.confirmation is not None:
        raise SpecError(f"The study {study.name!r} confirms another one: name that one instead.")
    found = find_companion(database, study)
    if found is not None:
        return found, False
    if not confirm.top:
        raise SpecError("confirm.top = 0: no configuration is to run again. Say how many: --top 3")
    summary = read_summary(database, study)
    confirmation = plan_confirmation(summary, study.uuid, confirm)
    if confirmation is None:
        raise NotFoundError(
            f"No trial of the study {study.name!r} is complete, so there is nothing to confirm."
        )
    if not is_done(database, study) or len(summary.records) > summary.finished:
        name = shlex.quote(study.name)
        raise SpecError(
            f"The search of {study.name!r} is not over yet, and what is to come may be better: "
            f"finish it first, with 'tuner study run {name}', or end it as it is, with "
            f"'tuner study stop {name}'."
        )
    return _create(database, study, confirmation), True


def _create(database: Database, study: StudyHandle, confirmation: Confirmation) -> StudyHandle:
    """Creates the study that confirms another one; if its usual name is taken, by another."""
    names = (study.name[: _LONGEST - len(_ENDING)] + _ENDING, f"{_ENDING[1:]}-{study.uuid}")
    for name in names:
        if (found := find_companion(database, study)) is not None:
            return found  # another process was first
        spec = _confirming(study.spec, name, confirmation.runs)
        with contextlib.suppress(SpecError):
            return Studies(database).create(spec.model_copy(update={"confirmation": confirmation}))
    raise SpecError(f"There are studies {names[0]!r} and {names[1]!r} already: delete one.")


def announce(spec: StudySpec, name: str) -> str:
    """Returns a line that tells what the confirmation of a study will cost, before it is spent.

    Args:
        spec: The spec of the study that confirms.
        name: The name of the one that is confirmed.
    """
    confirmation = spec.confirmation
    if confirmation is None:
        raise ValueError(f"{spec.study.name} confirms no study")
    finalists = len(confirmation.finalists)
    return (
        f"Confirming {name!r}: {finalists} finalist{'s' * (finalists > 1)} on up to "
        f"{confirmation.seeds} fresh seeds each, at most {confirmation.runs} full trials."
    )


def _confirming(spec: StudySpec, name: str, runs: int) -> StudySpec:
    """Returns the spec of a study that trains as another one and searches nothing."""
    limits = {"trials": runs, "full_trials": None, "wall_time": None, "stop": "never"}
    search = Search(
        sampler="random", pruner="none", portfolio=False, spare=0, warm_start=OFF,
        seed=spec.search.seed,
    )  # fmt: skip
    return spec.model_copy(
        update={
            "study": spec.study.model_copy(update={"name": name}),
            "budget": spec.budget.model_copy(update=limits),
            "search": search,
            "warm_start": None,
        }
    )
