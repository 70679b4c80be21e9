"""The database: Optuna's tables and our own; who holds which trial; what has been recorded."""

from tuner.store.connection.database import Database, open_database
from tuner.store.connection.retries import Patience
from tuner.store.connection.urls import default_url, redact
from tuner.store.curves import read_curves
from tuner.store.identity import StudyHandle
from tuner.store.leases.outbox import Outbox
from tuner.store.leases.single_ledger import LaneEnding, LaneReport, Lease, Ledger, Orders
from tuner.store.leases.workers import WorkerIdentity
from tuner.store.records import RecordReader, read_records
from tuner.store.studies import Studies

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
