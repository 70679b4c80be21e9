"""The database: Optuna's tables and our own; who holds which trial; what has been recorded."""

from tuner.store.curves import read_curves
from tuner.store.database import Database, open_database
from tuner.store.identity import StudyHandle
from tuner.store.ledger import LaneEnding, LaneReport, Lease, Ledger, Orders
from tuner.store.outbox import Outbox
from tuner.store.records import RecordReader, read_records
from tuner.store.retries import Patience
from tuner.store.studies import Studies
from tuner.store.urls import default_url, redact
from tuner.store.workers import WorkerIdentity

__all__ = [
    "Database",
    "LaneEnding",
    "LaneReport",
    "Lease",
    "Ledger",
    "Orders",
    "Outbox",
    "Patience",
    "RecordReader",
    "Studies",
    "StudyHandle",
    "WorkerIdentity",
    "default_url",
    "open_database",
    "read_curves",
    "read_records",
    "redact",
]
