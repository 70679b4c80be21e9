"""Reads the version of a database's tables, and brings them up to date."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from tuner.errors import NotFoundError, StorageError

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007")
"""Every version of our tables, oldest first; the files of ``store/migrations/versions``."""

HEAD = REVISIONS[-1]
"""The version this tuner works with."""

VERSION_TABLE = "tuner_alembic_version"
_OPTUNA_VERSION_TABLE = "alembic_version"


def read_revision(connection: sa.Connection) -> str | None:
    """Returns the version of our tables, or None where there are none."""
    return _read(connection, VERSION_TABLE)


def read_optuna_revision(connection: sa.Connection) -> str | None:
    """Returns the version of Optuna's tables, or None where there are none."""
    return _read(connection, _OPTUNA_VERSION_TABLE)


def is_older(revision: str | None) -> bool:
    """Tells whether our tables are of a version that can be upgraded."""
    return revision in REVISIONS[:-1]


def check_version(name: str, revision: str | None) -> None:
    """Refuses a database whose tables of tuner's are of another version.

    Args:
        name: The database's URL without its password.
        revision: The version of our tables; Optuna's are
            :class:`tuner.store.optuna.storage.Storage`'s to judge.

    Raises:
        NotFoundError: If it has no tables of ours.
        StorageError: If it is of another version.
    """
    if revision is None:
        raise no_studies(name)
    if is_older(revision):
        raise StorageError(
            f"{name}: tuner's tables are of version {revision}, this tuner works with {HEAD}: "
            "run 'tuner db upgrade' once no older tuner works on it any more."
        )
    if revision != HEAD:
        raise StorageError(
            f"{name}: tuner's tables are of version {revision}, this tuner knows {HEAD}. "
            "Install the newer tuner that made them."
        )


def no_studies(name: str) -> NotFoundError:
    """Returns the error for a database without tables of tuner's."""
    return NotFoundError(
        f"{name}: a database without studies of tuner. Make one with 'tuner study create'."
    )


def migrate(connection: sa.Connection, revision: str = HEAD) -> None:
    """Brings our tables to a version, in the transaction of the connection."""
    from alembic import command  # noqa: PLC0415 (slow to import, seldom needed)
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parents[1] / "migrations"))
    config.attributes["connection"] = connection
    config.attributes["version_table"] = VERSION_TABLE
    command.upgrade(config, revision)


def _read(connection: sa.Connection, table: str) -> str | None:
    if not sa.inspect(connection).has_table(table):
        return None
    return connection.execute(
        sa.select(sa.column("version_num")).select_from(sa.table(table))
    ).scalar_one_or_none()
