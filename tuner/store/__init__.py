"""The database: Optuna's tables and our own; who holds which trial; what has been recorded."""

from tuner.store.database import Database, open_database
from tuner.store.ledger import Lease, Ledger
from tuner.store.records import RecordReader, read_records
from tuner.store.studies import Studies, StudyHandle
from tuner.store.urls import default_url, redact

__all__ = [
    "Database",
    "Lease",
    "Ledger",
    "RecordReader",
    "Studies",
    "StudyHandle",
    "default_url",
    "open_database",
    "read_records",
    "redact",
]
