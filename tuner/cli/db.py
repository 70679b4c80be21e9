"""``tuner db``: the state of the database, and the upgrade of its tables."""

from __future__ import annotations

import dataclasses

import click

from tuner.cli.options import echo_json, examples, json_option, quiet_option, storage_option, tell
from tuner.cli.words import Group


@click.group(cls=Group, epilog=examples("tuner db status", "tuner db upgrade"))
def db() -> None:
    """Show the state of the database, and upgrade its tables."""


@db.command(
    epilog=examples(
        "tuner db status",
        "tuner db status --storage postgresql+psycopg://ann@db.example/tuner --json",
    )
)
@storage_option
@json_option
def status(storage: str | None, as_json: bool) -> None:
    """Show which database is in use, what it holds, and whether it needs an upgrade."""
    from tuner.store import default_url
    from tuner.store.status import read_status

    found = read_status(storage or default_url())
    if as_json:
        echo_json(dataclasses.asdict(found))
        return
    needed = "run 'tuner db upgrade'" if found.needs_upgrade else "not needed"
    if found.needs_newer:
        needed = "a newer tuner made the tables, and this one does not open them: install that one"
    rows = {
        "database": found.storage,
        "server": f"{found.backend} {found.server_version}",
        "Optuna's tables": f"{found.optuna_revision or 'none'} (known: {found.optuna_known})",
        "tuner's tables": f"{found.revision or 'none'} (known: {found.known})",
        "studies": f"{found.studies} with {found.trials} trials",
        "upgrade": needed,
    }
    width = max(map(len, rows))
    for label, value in rows.items():
        click.echo(f"{label:<{width}}  {value}")


@db.command(
    epilog=examples(
        "tuner db upgrade",
        "tuner db upgrade --storage postgresql+psycopg://ann@db.example/tuner",
    )
)
@storage_option
@quiet_option
@json_option
def upgrade(storage: str | None, as_json: bool) -> None:
    """Bring the database's tables up to date; in an empty database, create them.

    Nothing recorded is lost. An older tuner does not open the database any more afterwards.
    """
    from tuner.store import default_url, redact
    from tuner.store.connection.database import upgrade_database

    url = storage or default_url()
    before, after = upgrade_database(url)
    if as_json:
        echo_json({"storage": redact(url), "before": before, "after": after})
        return
    if before == after:
        done = f"is at version {after} already"
    elif before is None:
        done = f"has its tables now, of version {after}"
    else:
        done = f"went from version {before} to {after}"
    tell(f"{redact(url)} {done}.", err=False)
