"""How a study's trials train on each kind of device, as the first worker there has found out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.domain.fusing import FusePlan
from tuner.store.database import Database
from tuner.store.identity import StudyHandle, lock, look_up, set_attribute

PLANS = "tuner:fuse"


def read_plans(database: Database, study: StudyHandle) -> dict[str, FusePlan]:
    """Returns the plans of a study, by what was asked for on which kind of device.

    Raises:
        NotFoundError: If the study has been deleted.
    """
    with database.read() as connection:
        return _plans(look_up(connection, study).attributes)


def keep_plan(database: Database, study: StudyHandle, key: str, plan: FusePlan) -> FusePlan:
    """Stores a plan, unless another worker has stored one for the same budget; returns what counts.

    Args:
        database: Where the study is.
        study: The study.
        key: What was asked for, on which kind of device.
        plan: What was found.

    Raises:
        NotFoundError: If the study has been deleted.
    """
    with database.write() as connection:
        present = lock(connection, study)
        plans = _plans(present.attributes)
        known = plans.get(key)
        if known is not None and known.trials == plan.trials:
            return known
        kept = {**plans, key: plan}
        values = {name: one.to_json() for name, one in kept.items()}
        set_attribute(connection, present.study_id, PLANS, values)
    return plan


def _plans(attributes: Mapping[str, Any]) -> dict[str, FusePlan]:
    plans: dict[str, dict[str, Any]] = attributes.get(PLANS, {})
    return {key: FusePlan.from_json(values) for key, values in plans.items()}
