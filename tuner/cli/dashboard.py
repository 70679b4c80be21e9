"""``tuner dashboard``: Optuna Dashboard on the studies' database."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from tuner.cli.options import examples, open_storage, storage_option
from tuner.cli.serving import Serving, serve, serving_options


@click.command(
    epilog=examples(
        "tuner dashboard",
        "tuner dashboard --port 9000",
        "tuner dashboard --host 0.0.0.0 --password-file secret --allow-host tuner.example.org",
    )
)
@storage_option
@partial(serving_options, port=8080)
def dashboard(
    storage: str | None,
    host: str,
    port: int,
    password_file: Path | None,
    hosts: tuple[str, ...],
) -> None:
    """Serve Optuna Dashboard on the database, by default for this machine only.

    With a password other machines may reach it too. Browsers ask for it (the user name does not
    matter); scripts send "Authorization: Bearer PASSWORD". It does not encrypt: put a proxy with
    TLS in front.
    """
    from tuner.service.dashboard.application import make_dashboard

    database = open_storage(storage)
    serving = Serving(host, port, password_file, hosts)
    serve(lambda: make_dashboard(database), f"Optuna Dashboard on {database.name}", serving)
