"""The confirmation of a study: its finalists run again, as a study of its own."""

from __future__ import annotations

from tuner.analysis.finalists import plan_confirmation
from tuner.domain.confirmation import Confirm
from tuner.domain.spec import Search, StudySpec
from tuner.domain.states import StudyState
from tuner.domain.warm_start import OFF
from tuner.errors import NotFoundError, SpecError
from tuner.service.summaries import read_summary
from tuner.store import Database, Studies, StudyHandle
from tuner.store.companions import find_companion

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
    unfinished = len(summary.records) - summary.finished
    return summary.state is StudyState.RUNNING and not unfinished and summary.best is not None


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
        SpecError: If it confirms another one itself, or its trials still train.
    """
    if study.spec.confirmation is not None:
        raise SpecError(f"The study {study.name!r} confirms another one: name that one instead.")
    found = find_companion(database, study)
    if found is not None:
        return found, False
    summary = read_summary(database, study)
    unfinished = len(summary.records) - summary.finished
    if unfinished:
        raise SpecError(
            f"{unfinished} trials of the study {study.name!r} are not over yet, and one of them "
            f"may be the best: finish the search first, with 'tuner study run {study.name}'."
        )
    confirmation = plan_confirmation(summary, study.uuid, confirm)
    if confirmation is None:
        raise NotFoundError(
            f"No trial of the study {study.name!r} is complete, so there is nothing to confirm."
        )
    spec = _confirming(study.spec, study.name, confirmation.runs)
    spec = spec.model_copy(update={"confirmation": confirmation})
    return Studies(database).create(spec), True


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
            "study": spec.study.model_copy(
                update={"name": name[: _LONGEST - len(_ENDING)] + _ENDING}
            ),
            "budget": spec.budget.model_copy(update=limits),
            "search": search,
            "warm_start": None,
        }
    )
