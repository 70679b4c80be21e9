"""The finalists of a study that confirms another one, which workers write once the search is over.

They are an event, since a worker may not write a study's attributes. Whoever reads the study finds
them in its spec.
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from tuner.domain.confirmation import Confirmation
from tuner.store.damage import parse_value
from tuner.store.events import record
from tuner.store.tables import events

_KIND = "planned"


def is_waiting(spec: Any) -> bool:
    """Tells whether a stored spec is of a study that confirms another one and has no finalists yet.

    Args:
        spec: The spec as it is stored, or as :func:`add_finalists` returns it.
    """
    confirmation = spec.get("confirmation") if isinstance(spec, dict) else None
    return isinstance(confirmation, dict) and not confirmation.get("finalists")


def add_finalists(connection: sa.Connection, study_uuid: Any, spec: Any) -> Any:
    """Returns a stored spec with the finalists that have been written since, if there are any.

    Args:
        connection: An open transaction.
        study_uuid: The study.
        spec: Its spec as it is stored.

    Returns:
        The spec. What was written is part of it also where it is damaged, so that it is refused.
    """
    if not is_waiting(spec):
        return spec
    of_study = events.c.study_uuid == study_uuid
    detail = connection.execute(
        sa.select(events.c.detail)
        .where(of_study, events.c.number.is_(None), events.c.kind == _KIND)
        .order_by(events.c.event_id)
        .limit(1)
    ).scalar_one_or_none()
    if detail is None:
        return spec
    plan, budget = parse_value(detail), spec.get("budget")
    if not isinstance(plan, dict) or not isinstance(budget, dict):
        return spec | {"confirmation": str(detail)}
    larger = budget | {"trials": plan.get("runs")}
    return spec | {"budget": larger, "confirmation": spec["confirmation"] | plan}


def write_finalists(connection: sa.Connection, study_uuid: str, confirmation: Confirmation) -> None:
    """Writes the finalists of a study that confirms another one; lock it, and see that it waits.

    Args:
        connection: A transaction that has locked the study.
        study_uuid: The study.
        confirmation: The finalists.
    """
    plan = confirmation.model_dump(mode="json", exclude_none=True, exclude={"study"})
    record(connection, study_uuid, _KIND, detail=json.dumps(plan))
