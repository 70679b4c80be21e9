"""The database: Optuna's tables and our own, with the leases and the records of trials."""

from tuner.store.connection.database import Database, open_database
from tuner.store.connection.retries import Patience
from tuner.store.connection.urls import default_url, redact
from tuner.store.curves import read_curves
from tuner.store.identity import StudyHandle
from tuner.store.leases.ledger import Ledger
from tuner.store.leases.outbox import Outbox
from tuner.store.leases.rows import Lease
from tuner.store.leases.signals import ControlSignals
from tuner.store.leases.trial_reports import TrialEnding, TrialReport
from tuner.store.leases.workers import WorkerIdentity
from tuner.store.records import RecordReader, read_records
from tuner.store.studies import Studies

__all__ = [
    "ControlSignals",
    "Database",
    "Lease",
    "Ledger",
    "Outbox",
    "Patience",
    "RecordReader",
    "Studies",
    "StudyHandle",
    "TrialEnding",
    "TrialReport",
    "WorkerIdentity",
    "default_url",
    "open_database",
    "read_curves",
    "read_records",
    "redact",
]
