"""Our own tables, beside Optuna's: workers, leases, events and logged numbers.

A study is tied to them by a UUID kept in an attribute of the Optuna study, and a trial by its
number, since renaming a study in Optuna Dashboard changes every id of Optuna's.
"""

from __future__ import annotations

from sqlalchemy import Column, Float, Index, Integer, MetaData, String, Table, Text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import FunctionElement

metadata = MetaData()

workers = Table(
    "tuner_workers",
    metadata,
    Column("worker_id", String(32), primary_key=True),
    Column("study_uuid", String(32), nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("device", String(64), nullable=False),
    Column("version", String(64), nullable=False),
    Column("seed", String(20), nullable=False),
    Column("started_at", Float(53), nullable=False),
    Column("last_seen", Float(53), nullable=False),
    Column("machine", String(255), nullable=False, server_default=""),
    Column("software", String(255), nullable=False, server_default=""),
    Column("leaving", Integer, nullable=False, server_default="0"),
    Column("worked_s", Float(53), nullable=False, server_default="0"),
    Column("study_s", Float(53), nullable=False, server_default="0"),
    Index("ix_tuner_workers_study", "study_uuid"),
)
"""Every process that ever worked on a study; times are seconds since 1970 by the database.

``leaving`` is 1 once a worker has been asked to end. ``worked_s`` is for how long the worker had
lived when it was last seen, by a clock of its own that only grows, and ``study_s`` for how long the
study had been worked on by then.
"""

leases = Table(
    "tuner_leases",
    metadata,
    Column("study_uuid", String(32), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("token", String(32), nullable=False),
    Column("worker_id", String(32)),
    Column("expires_at", Float(53), nullable=False),
    Column("step", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("checkpoint", String(32)),
    Column("paused", Integer, nullable=False, server_default="0"),
)
"""Every unfinished trial: its holder (none once released), and how far it came.

``checkpoint`` is the token of the holder whose checkpoint counts, none before the first.
``paused`` is 0, or the progress at which the trial waits without a holder to be promoted.
"""

curves = Table(
    "tuner_curves",
    metadata,
    Column("study_uuid", String(32), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("value", Float(53), nullable=False),
)
"""Numbers a trial logs by step, apart from its evaluations: dense, and never read to judge it."""


events = Table(
    "tuner_events",
    metadata,
    Column("event_id", Integer, primary_key=True),
    Column("study_uuid", String(32), nullable=False),
    Column("number", Integer),
    Column("worker_id", String(32)),
    Column("at", Float(53), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("detail", Text, nullable=False, server_default=""),
    Index("ix_tuner_events_study", "study_uuid", "number"),
)
"""What happened to a study, or to one of its trials, beyond plain training."""


plans = Table(
    "tuner_plans",
    metadata,
    Column("study_uuid", String(32), primary_key=True),
    Column("place", String(255), primary_key=True),
    Column("plan", Text, nullable=False),
)
"""How a study's trials train at a place: what was asked for, on which kind of device."""


charges = Table(
    "tuner_charges",
    metadata,
    Column("study_uuid", String(32), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("reached", Float(53), nullable=False),
    Column("lost", Float(53), nullable=False, server_default="0"),
    Column("loss", String(64)),
)
"""What each trial takes of a study's budget in full trials, of studies that have such a budget.

``reached`` is how far the trial came, or may yet come while it trains; ``lost`` is training that
was done and has to be done again. ``loss`` names the last loss that was charged: by whom, and from
where the trial went on.
"""


class DatabaseClock(FunctionElement[float]):
    """Seconds since 1970 by the database's own clock, so that hosts need not agree on time."""

    type = Float(53)
    inherit_cache = True


@compiles(DatabaseClock, "sqlite")
def _sqlite_clock(element: DatabaseClock, compiler: SQLCompiler, **kwargs: object) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(DatabaseClock, "postgresql")
def _postgresql_clock(element: DatabaseClock, compiler: SQLCompiler, **kwargs: object) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)"
