"""The opening of a study: it is created, or found by its name if only the budget differs."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from dataclasses import dataclass, field

from tuner.domain.printable import cut
from tuner.domain.spec import Budget, StudySpec
from tuner.errors import NotFoundError, SpecError
from tuner.store import Database, Studies, StudyHandle, default_url, open_database
from tuner.store.studies import Limit

_LIMITS = ("trials", "wall_time")
_EXTENDABLE = {f"budget.{name}" for name in _LIMITS}


@dataclass(frozen=True)
class Opened:
    """A study that was created or opened, and how its budget changed.

    Attributes:
        study: The study.
        created: Whether it is new.
        changed: Budgets that have changed, by key.
        kept: Budgets that stay above those of the study file, by key: that of the study, and the
            file's.
    """

    study: StudyHandle
    created: bool = False
    changed: dict[str, Limit] = field(default_factory=dict)
    kept: dict[str, tuple[Limit, Limit]] = field(default_factory=dict)


def find_study(url: str | None, name: str) -> bool:
    """Tells whether a database exists and holds a study of this name; creates nothing.

    Args:
        url: The database's URL, or None for the default one.
        name: The study's name.
    """
    try:
        database = open_database(url or default_url())
    except NotFoundError:
        return False
    found = Studies(database).exists(name)
    database.close()
    return found


def open_study(database: Database, spec: StudySpec, settings: Collection[str] = ()) -> Opened:
    """Creates the study that a spec describes, or finds it and changes its budget.

    A setting such as ``budget.trials`` replaces the budget of trials or wall time. A study file
    only raises it, since the file may be older than the study's budget.

    Args:
        database: The database that keeps it.
        spec: The study file with the settings applied, not resolved.
        settings: The keys that were set beside the file, such as ``budget.trials``.

    Returns:
        The study, and the changes of its budget.

    Raises:
        SpecError: If a study of this name differs in anything but its budget.
    """
    studies = Studies(database)
    name = spec.study.name
    if not studies.exists(name):
        try:
            return Opened(studies.create(spec.resolve()), created=True)
        except SpecError:
            # Another process created it in between; then it is compared like any other.
            if not studies.exists(name):
                raise
    study = studies.find(name)
    wanted = spec.resolve(study.spec.space.breadth)
    differences = study.spec.differences(wanted)
    if any(key not in _EXTENDABLE for key in differences):
        raise SpecError(_describe(name, differences))
    # A default of a file that says nothing asks for nothing.
    asked = {
        name: getattr(spec.budget, name) for name in _LIMITS if name in spec.budget.model_fields_set
    }
    forced = {name for name in asked if {"budget", f"budget.{name}"} & set(settings)}
    before = study.spec.budget

    def change(budget: Budget) -> dict[str, Limit]:
        nonlocal before
        before = budget
        return {
            name: limit
            for name, limit in asked.items()
            if limit != getattr(budget, name)
            and (name in forced or _is_more(limit, getattr(budget, name)))
        }

    if change(before):
        study = studies.extend(study, change)
    changed = change(before)
    kept = {
        name: (getattr(before, name), limit)
        for name, limit in asked.items()
        if name not in changed and limit != getattr(before, name)
    }
    return Opened(study, changed=changed, kept=kept)


def _is_more(limit: Limit, other: Limit) -> bool:
    return other is not None and (limit is None or limit > other)


def _describe(name: str, differences: dict[str, tuple[object, object]]) -> str:
    fixed = {key: pair for key, pair in differences.items() if key not in _EXTENDABLE}
    # What joins or leaves brings its own hyperparameters along: those go without saying.
    telling = {key: pair for key, pair in fixed.items() if not _follows(key, fixed)}
    lines = [
        f"The study {name!r} exists and differs:",
        *(
            f"  {key}: {_show(stored)} in the database, {_show(given)} now"
            for key, (stored, given) in telling.items()
        ),
    ]
    if any(key.startswith("budget.") for key in fixed):
        lines.append("Trials of different lengths cannot be ranked against each other.")
    if any(key.startswith("space.") for key in fixed):
        lines.append(
            "The study was searched for what it names: what joins late has had fewer trials, and "
            "a ranking of both would not be fair."
        )
    lines.append(
        "Only budget.trials and budget.wall_time can change in an existing study. Give the new "
        f"one another --name, or delete the old one: tuner study delete {shlex.quote(name)}"
    )
    return "\n".join(lines)


def _follows(key: str, differences: dict[str, tuple[object, object]]) -> bool:
    """Tells whether a difference follows from an optimizer or schedule that joins or leaves."""
    table, _, rest = key.partition(".")
    if table == "average":
        return "train.average" in differences
    chosen = differences.get(f"space.{table}s")
    if chosen is None:
        return False
    branch = rest.partition(".")[0]
    return not all(isinstance(names, list) and branch in names for names in chosen)


def _show(value: object) -> str:
    return "nothing" if value is None else cut(str(value), 200)
