"""The choice of the earlier study that a new one starts from."""

from __future__ import annotations

import math

from tuner.domain.spec import StudySpec
from tuner.domain.warm_start import AUTO, OFF, WarmStart
from tuner.errors import NotFoundError, SpecError, TunerError, UnavailableError
from tuner.search.warm_start import Earlier, length_ratio, take_over
from tuner.store import Database, Studies, StudyHandle, read_records
from tuner.store.overviews import StudyOverview

ENOUGH = 3
"""Complete trials that an earlier study has at least for ``auto`` to take it."""


def add_warm_start(spec: StudySpec, database: Database | None) -> StudySpec:
    """Returns a spec with what its study takes over from an earlier one, as its file asks for it.

    Args:
        spec: The new study, resolved.
        database: The database that it is created in, None if there is none yet.

    Raises:
        NotFoundError: If the study that is named does not exist.
        SpecError: If it has another metric or direction, no complete trial, or none whose optimizer
            competes.
    """
    wanted = spec.search.warm_start
    if wanted == OFF or spec.warm_start is not None:
        return spec
    if wanted == AUTO:
        taken = None if database is None else _find_any(spec, database)
    else:
        taken = take_over(spec, _find_named(spec, database, wanted))
        if taken is None:
            raise SpecError(
                f"search.warm_start = {wanted!r}: no optimizer of this study has a complete trial "
                f"there: add one of its optimizers to space.optimizers, or start cold: "
                f"--warm-start {OFF}"
            )
    return spec.model_copy(update={"warm_start": taken})


def _find_named(spec: StudySpec, database: Database | None, name: str) -> Earlier:
    """Returns the study of a name, if this one can start from it."""
    key = f"search.warm_start = {name!r}"
    if database is None:
        raise NotFoundError(f"{key}: there is no database yet, and so no study to start from.")
    try:
        study = Studies(database).find(name)
    except NotFoundError as error:
        raise NotFoundError(f"{key}: {error}") from None
    earlier = Earlier(name, study.spec, read_records(database, study, evaluations=False))
    for part in _SAME[1:]:
        theirs, ours = (getattr(one.study, part) for one in (earlier.spec, spec))
        if theirs != ours:
            raise SpecError(
                f"{key}: that study's {part} is {theirs}, and this one's is {ours}, so its best is "
                "not this one's best: name another study"
            )
    if not earlier.ranked:
        raise SpecError(
            f"{key}: that study has no complete trial yet, so it has no best: wait until it has, "
            f"or start cold: --warm-start {OFF}"
        )
    return earlier


def _find_any(spec: StudySpec, database: Database) -> WarmStart | None:
    """Returns what the earlier study teaches that is most like a new one, None if none fits."""
    for study in _find_alike(spec, database):
        records = read_records(database, study, evaluations=False)
        earlier = Earlier(study.name, study.spec, records)
        if len(earlier.ranked) >= ENOUGH and (taken := take_over(spec, earlier)) is not None:
            return taken
    return None


def _find_alike(spec: StudySpec, database: Database) -> list[StudyHandle]:
    """Returns the studies of a spec's workload, metric and direction, the most alike first."""
    studies = Studies(database)
    found: list[tuple[StudyOverview, StudyHandle]] = []
    for overview in studies.list():
        if overview.workload != spec.study.workload or overview.best_value is None:
            continue
        try:
            study = studies.get(overview.name)
        except UnavailableError:
            raise
        except TunerError:  # it is damaged, and so no one's example
            continue
        if (
            study is not None
            and study.spec.confirmation is None
            and study.spec.space.regime == spec.space.regime
            and all(getattr(study.spec.study, part) == getattr(spec.study, part) for part in _SAME)
        ):
            found.append((overview, study))
    return [study for _, study in sorted(found, key=lambda pair: _unlikeness(spec, *pair))]


_SAME = ("workload", "metric", "direction")
"""The keys of the [study] table that two studies share if one can start from the other."""


def _unlikeness(
    spec: StudySpec, overview: StudyOverview, study: StudyHandle
) -> tuple[float, int, int, str]:
    """Returns a key that is the smaller, the more an earlier study has to teach a new one.

    Trials of nearly the same length come first, then studies that share more optimizers, and then
    those of more trials.
    """
    ratio = length_ratio(study.spec, spec)
    shared = {*study.spec.space.optimizers} & {*spec.space.optimizers}
    distance = math.inf if ratio is None else abs(math.log(ratio))
    return distance, -len(shared), -overview.started, study.name
