"""``tuner dashboard``: Optuna Dashboard on the studies' database."""

from __future__ import annotations

import click

from tuner.cli.options import examples, open_storage, storage_option


@click.command(epilog=examples("tuner dashboard", "tuner dashboard --port 9000"))
@storage_option
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535))
def dashboard(storage: str | None, port: int) -> None:
    """Show the studies in Optuna Dashboard, reachable from this machine alone."""
    from tuner.service.dashboard import serve

    database = open_storage(storage)
    serve(
        database,
        port,
        lambda url: click.echo(f"Optuna Dashboard on {database.name}: {url}  (Ctrl-C ends it)"),
    )
