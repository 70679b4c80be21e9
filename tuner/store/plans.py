"""How a study's trials train on each kind of device, as the first worker there has found out."""

from __future__ import annotations

import json

import sqlalchemy as sa

from tuner.domain.fuse_plan import FusePlan
from tuner.store.connection.database import Database
from tuner.store.damage import UNREADABLE, Damaged, parse_value, warn_of_damage
from tuner.store.identity import StudyHandle, lock, look_up
from tuner.store.optuna import tables as ot
from tuner.store.tables import plans


def read_plans(database: Database, study: StudyHandle) -> dict[str, FusePlan]:
    """Returns the plans of a study, by the --fuse asked for and the kind of device.

    Raises:
        NotFoundError: If the study has been deleted.
    """
    with database.read() as connection:
        look_up(connection, study)
        return _read(connection, study)


def find_plan(database: Database, study: StudyHandle, asked: str) -> FusePlan | None:
    """Returns a plan for the study's budget, on whichever device there is one.

    Args:
        database: Where the study is.
        study: The study.
        asked: What was asked for.
    """
    plans = read_plans(database, study)
    trials = study.spec.budget.trials
    own = (plan for place, plan in plans.items() if place.startswith(f"{asked} on "))
    return next((plan for plan in own if plan.trials == trials), None)


def keep_plan(database: Database, study: StudyHandle, place: str, plan: FusePlan) -> FusePlan:
    """Stores a plan unless the same budget has one already; returns the plan that counts.

    Args:
        database: Where the study is.
        study: The study.
        place: What was asked for, on which kind of device.
        plan: What was found.

    Raises:
        NotFoundError: If the study has been deleted.
    """
    with database.write() as connection:
        lock(connection, study)
        known = _read(connection, study).get(place)
        if known is not None and known.trials == plan.trials:
            return known
        row = {"study_uuid": study.uuid, "place": place, "plan": json.dumps(plan.to_json())}
        ot.upsert(connection, plans, [row], ("study_uuid", "place"))
    return plan


def _read(connection: sa.Connection, study: StudyHandle) -> dict[str, FusePlan]:
    rows = connection.execute(
        sa.select(plans.c.place, plans.c.plan).where(plans.c.study_uuid == study.uuid)
    )
    found = {}
    for row in rows:
        try:
            found[row.place] = _parse(row.plan)
        except UNREADABLE as error:
            warn_of_damage(f"The plan of {study.name!r} for {row.place} is left out", error)
    return found


def _parse(text: str) -> FusePlan:
    values = parse_value(text)
    if isinstance(values, Damaged):
        raise TypeError(f"it is no JSON: {text[:60]!r}.")
    plan = FusePlan.from_json(values)
    if not (type(plan.lanes) is type(plan.trials) is int and isinstance(plan.reason, str)):
        raise ValueError(f"it is {text[:60]!r}.")
    return plan
