"""The tables of the catalog by name: each maps the names of its rows to the rows."""

from __future__ import annotations

from collections.abc import Mapping

from tuner.domain.catalog.averages import AVERAGES, AverageRow
from tuner.domain.catalog.optimizers import OPTIMIZERS, OptimizerRow
from tuner.domain.catalog.schedules import SCHEDULES, ScheduleRow

Row = OptimizerRow | ScheduleRow | AverageRow

TABLES: dict[str, Mapping[str, Row]] = {
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "average": AVERAGES,
}
"""The tables by the name of the parameter that chooses a row, also their names in study files."""
