"""``tuner dashboard``: Optuna Dashboard on the studies' database."""

from __future__ import annotations

from pathlib import Path

import click

from tuner.cli.options import examples, open_storage, storage_option


@click.command(
    epilog=examples(
        "tuner dashboard",
        "tuner dashboard --port 9000",
        "tuner dashboard --host 0.0.0.0 --password-file secret --allow-host tuner.example.org",
    )
)
@storage_option
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Where to listen; any address but loopback needs a password.",
)
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535))
@click.option(
    "--password-file",
    envvar="TUNER_DASHBOARD_PASSWORD_FILE",
    type=click.Path(path_type=Path),
    help="A file with the password. [default: the file $TUNER_DASHBOARD_PASSWORD_FILE, or the "
    "password in $TUNER_DASHBOARD_PASSWORD]",
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="A host name under which it is reached, such as a proxy's. Repeatable.",
)
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
    import os

    from tuner.service.dashboard.authentication import is_readable_by_all, read_password
    from tuner.service.dashboard.server import Place, listen

    password = read_password(os.environ.get("TUNER_DASHBOARD_PASSWORD"), password_file)
    if password_file is not None and is_readable_by_all(password_file):
        click.echo(
            f"Warning: every user of this machine can read {password_file}: "
            f"chmod 600 {password_file}",
            err=True,
        )
    place = Place.find(host)
    database = open_storage(storage)

    with listen(database, place, port, password=password, hosts=hosts) as server:
        click.echo(f"Optuna Dashboard on {database.name}: {server.url}  (Ctrl-C ends it)")
        if not place.is_loopback:
            click.echo(
                "It does not encrypt, so the password can be read on the way: put a proxy with "
                "TLS in front of it.",
                err=True,
            )
        server.run()
