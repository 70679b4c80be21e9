"""Translates a database's errors: whether waiting helps, and the remedy for a person."""

from __future__ import annotations

import sqlite3

import optuna
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from tuner.errors import DeniedError, StorageError, UnavailableError
from tuner.store.connection.urls import hide_secrets, parse_url, redact

# PostgreSQL's codes, class by class of its Appendix A. What passes: connections (08), conflicts
# between transactions (40), resources (53), what an operator or a timeout has ended (57), the
# system around the server (58), a snapshot that was too old (72), an internal error (XX). Classes
# that are not here speak of what is asked, who asks, or what is stored: the same fails again.
_TRANSIENT_CLASSES = ("08", "40", "53", "57", "58", "72", "XX")
_PERMANENT = {
    "53100",  # a full disk: a person has to make room
    "57P04",  # the database was dropped
    *("58P01", "58P02", "58P03"),  # a file of the server's is missing, there already, misnamed
    *("XX001", "XX002"),  # what is stored is damaged
}
# Of classes whose other codes would fail again:
_TRANSIENT = {
    "23503",  # what it was about has just been deleted or moved
    "25006",  # read-only, as a server is that was the primary until just now
    *("25P03", "25P04"),  # a transaction was idle, or lasted, for too long
    "26000",  # a prepared statement that the server, another one by now, does not know
    *("55006", "55P03"),  # somebody else uses it, or holds its lock
}
_OUTLIVED = {"25006", "26000", "57014"}
_SQLITE_TRANSIENT = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_CREATED_MEANWHILE = {"42P07", "42701", "42710", "23505"}
_MISSING_TABLE = "42P01"
_DENIED = "42501"
_OVER = "change a trial that is over"  # in the words of deploy/roles.sql

# A server that refuses a connection gives no code, only words.
_REFUSALS = (
    "authentication failed",
    "does not exist",
    "no password supplied",
    "no pg_hba.conf entry",
    "not permitted to log in",
    "permission denied",
)
_MEANINGS = {
    "file is not a database": "the file is something else than a SQLite database",
    "unable to open database file": "the file cannot be opened: check its folder and your rights",
    "readonly database": "the database is read-only: check your rights on the file",
    "database is locked": "another process has held the database for too long",
    "disk is full": "the disk is full: free some space; what was written so far is safe",
    "No space left": "the server's disk is full: free some space; what was written is safe",
    "refused": "nothing listens there: is the database server running?",
    "Is the server running": "nothing listens there: is the database server running?",
    "failed to resolve host": "there is no such host: check its name, or the network",
    "authentication failed": "the server refuses this user: check the name and the password",
    "no password supplied": "the server asks for a password: put it into the URL or ~/.pgpass",
    "read-only transaction": "the server takes no writes right now: it is a standby, or a failover "
    "is under way",
    "due to statement timeout": "a statement took longer than the server's statement_timeout",
    "due to transaction timeout": "a transaction took longer than the server's transaction_timeout",
    "due to user request": "somebody has cancelled the statement",
    "too many clients": "the server takes no more connections: use fewer workers, or raise its "
    "max_connections",
}


def translate(error: Exception, url: str) -> StorageError:
    """Returns the error of tuner's that stands for one of SQLAlchemy or Optuna.

    Args:
        error: The error.
        url: The database it came from, whose secrets stay out of the message.

    Returns:
        An :class:`UnavailableError` if the same may work in a while, a :class:`DeniedError` if the
        role lacks the right, else a :class:`StorageError`.
    """
    root = _root(error)
    if _sqlstate(root) == _DENIED:
        over = _OVER in str(getattr(root, "orig", ""))
        statement = getattr(root, "statement", None) or ""
        return _deny(_OVER if over else _name(statement), url)
    kind = UnavailableError if is_transient(error) else StorageError
    return kind(f"{redact(url)}: {hide_secrets(_explain(error), url)}")


def _deny(what: str, url: str) -> DeniedError:
    """Returns the error for a statement that the database's role may not run."""
    role = parse_url(url).username
    who = "this role" if role is None else f"the role {role!r}"
    return DeniedError(
        f"{redact(url)}: {who} may not {what}: do it as the owner of the database's tables "
        "(docs/postgresql.md)."
    )


def _name(statement: str) -> str:
    """Returns the purpose of a statement that was denied, in words."""
    verb, *names = statement.split(None, 3)[:3] or [""]
    of_studies = any(name.startswith("stud") for name in names) or "FOR UPDATE" in statement
    return {
        "DELETE": "delete studies",
        "INSERT": "create or change studies" if of_studies else "train",
        "UPDATE": "create or change studies" if of_studies else "train",
        "SELECT": "work on studies" if of_studies else "read this",
    }.get(verb, "make or change tables")


def cause_to_show(error: Exception, url: str) -> Exception | None:
    """Returns the error, or None if its text or that of one below it holds a secret of the URL."""
    seen: BaseException | None = error
    while seen is not None:
        if hide_secrets(str(seen), url) != str(seen):
            return None
        seen = seen.__cause__ or seen.__context__
    return error


def is_transient(error: BaseException) -> bool:
    """Tells whether the same operation may work in a while: a lost connection, a conflict."""
    root = _root(error)
    if not isinstance(root, DBAPIError):
        return isinstance(root, PoolTimeoutError)
    if root.connection_invalidated:
        return True
    if isinstance(root.orig, sqlite3.Error):
        return _sqlite_code(root.orig) in _SQLITE_TRANSIENT
    code = _sqlstate(root)
    if code is None:
        refused = any(words in str(root.orig) for words in _REFUSALS)
        return isinstance(root, OperationalError) and not refused
    return code in _TRANSIENT or (code.startswith(_TRANSIENT_CLASSES) and code not in _PERMANENT)


def is_outlived(error: BaseException) -> bool:
    """Tells whether to connect anew, since the connection may be unlike one that starts now.

    It outlives the failover that makes its server a read-only standby, and keeps the timeouts that
    it started with.
    """
    return getattr(error, "sqlstate", None) in _OUTLIVED


def is_missing_table(error: BaseException) -> bool:
    """Tells whether a table was looked for that is not there."""
    root = _root(error)
    return _sqlstate(root) == _MISSING_TABLE or "no such table" in str(root)


def is_created_meanwhile(error: BaseException) -> bool:
    """Tells whether another process has just created the table or type that was to be created."""
    root = _root(error)
    if _sqlstate(root) in _CREATED_MEANWHILE:
        return True
    signs = ("already exists", "duplicate column", "database is locked")
    versions = ("alembic_version", "version_info", "tuner_alembic_version")
    rows = tuple(f"UNIQUE constraint failed: {table}." for table in versions)
    return any(sign in str(root) for sign in signs + rows)


def _root(error: BaseException) -> BaseException:
    """Returns the error below those that Optuna wraps around it."""
    while isinstance(error, optuna.exceptions.StorageInternalError) and error.__cause__:
        error = error.__cause__
    return error


def _sqlstate(error: BaseException) -> str | None:
    return getattr(getattr(error, "orig", None), "sqlstate", None)


def _sqlite_code(error: sqlite3.Error) -> int:
    # The low byte is the code, the rest says more about it.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _explain(error: Exception) -> str:
    """Returns a database error without the statement and parameters around it."""
    root = _root(error)
    text = str(root.orig if isinstance(root, DBAPIError) and root.orig else root).strip()
    first = text.splitlines()[0] if text else type(root).__name__
    if 'database "' in text and "does not exist" in text:
        name = text.partition('database "')[2].partition('"')[0]
        return f"the server has no such database: make it with 'createdb {name}' ({first})."
    for sign, meaning in _MEANINGS.items():
        if sign in text:
            return f"{meaning} ({first.rstrip('.')})."
    return f"{first.rstrip('.')}."
