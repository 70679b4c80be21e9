"""The options of commands that serve pages, and the server that such a command runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuner.cli.options import F

if TYPE_CHECKING:
    from tuner.service.web.authentication import Application

DEFAULT_HOST = "127.0.0.1"


@dataclass(frozen=True)
class Serving:
    """Where a command serves, and to whom.

    Attributes:
        host: The name or address that it listens on.
        port: The port; 0 for a free one.
        password_file: The file with the password, or None.
        hosts: Further names under which it is reached.
    """

    host: str
    port: int
    password_file: Path | None
    hosts: tuple[str, ...]


def serving_options(command: F, *, port: int) -> F:
    """Adds ``--host``, ``--port``, ``--password-file`` and ``--allow-host``.

    Args:
        command: The command.
        port: The port where none is given.
    """
    command = click.option(
        "--allow-host",
        "hosts",
        multiple=True,
        metavar="NAME",
        help="A host name under which it is reached, such as a proxy's. Repeatable.",
    )(command)
    command = click.option(
        "--password-file",
        envvar="TUNER_DASHBOARD_PASSWORD_FILE",
        type=click.Path(path_type=Path),
        help="A file with the password. [default: the file $TUNER_DASHBOARD_PASSWORD_FILE, or the "
        "password in $TUNER_DASHBOARD_PASSWORD]",
    )(command)
    command = click.option(
        "--port",
        default=port,
        show_default=True,
        type=click.IntRange(0, 65535),
        help="Where to listen; 0 picks a free port.",
    )(command)
    return click.option(
        "--host",
        default=DEFAULT_HOST,
        show_default=True,
        metavar="ADDRESS",
        help="Where to listen; any address but loopback needs a password.",
    )(command)


def serve(
    make: Callable[[], Application], what: str, serving: Serving, *, shown: bool = False
) -> None:
    """Serves an application until Ctrl-C or SIGTERM.

    Args:
        make: Makes the application.
        what: What it is, for the line that says where.
        serving: Where it is served, and to whom.
        shown: Whether to open it in a browser.
    """
    import os

    from tuner.service.web.authentication import is_readable_by_all, read_password
    from tuner.service.web.server import Place, listen

    file = serving.password_file
    password = read_password(os.environ.get("TUNER_DASHBOARD_PASSWORD"), file)
    if file is not None and is_readable_by_all(file):
        click.echo(
            f"Warning: every user of this machine can read {file}: chmod 600 {file}", err=True
        )
    place = Place.find(serving.host)
    with listen(make, place, serving.port, password=password, hosts=serving.hosts) as server:
        click.echo(f"{what}: {server.url}  (Ctrl-C ends it)")
        if not place.is_loopback:
            click.echo(
                "It does not encrypt, so the password can be read on the way: put a proxy with "
                "TLS in front of it.",
                err=True,
            )
        server.run(lambda: _open(server.url) if shown else None)


def _open(url: str) -> None:
    import webbrowser

    if not webbrowser.open(url):
        click.echo("No browser could be opened: open it yourself.", err=True)
