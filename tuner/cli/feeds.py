"""``tuner study log`` and ``events``: what a study does, for other tools and services."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from tuner.cli.options import (
    echo_json,
    examples,
    find_study,
    json_option,
    quiet_option,
    storage_option,
    tell,
)
from tuner.cli.outlets import targets_option
from tuner.cli.run import INTERRUPTED
from tuner.cli.words import STUDY
from tuner.domain.event_kinds import KINDS
from tuner.errors import SpecError, UnavailableError

if TYPE_CHECKING:
    from tuner.service.event_feed import StudyEvent
    from tuner.sinks.targets import Target


@click.command(
    epilog=examples(
        "tuner study log digits --to tensorboard:runs",
        "tuner study log digits --to mlflow:http://127.0.0.1:5000 --follow",
        "tuner study log digits --to wandb:team/digits",
    )
)
@click.argument("name", type=STUDY)
@targets_option("--to", required=True)
@click.option("--follow", is_flag=True, help="Go on with what is new, until the study is over.")
@storage_option
@quiet_option
@json_option
def log(
    name: str, targets: tuple[Target, ...], follow: bool, storage: str | None, as_json: bool
) -> None:
    """Send the curves, settings and endings of a study's trials to TensorBoard, MLflow or W&B.

    It reads them from the database, at any time and from any machine, and writes nothing twice.
    The runs that confirm the study are sent, too. A tool that is away is tried for half a minute,
    and with --follow until the study is over; the exit code is 69 if it stays away.
    """
    from tuner.service.interruption import Interruption
    from tuner.service.sending import Sending

    database, study = find_study(name, storage)
    sending = Sending(database, study, targets, lambda line: click.echo(line, err=True))
    with Interruption() as interruption:
        try:
            sending.run(interruption, follow=follow)
        finally:
            sending.close()
    if as_json:
        echo_json({"study": study.name, "targets": sending.to_json()})
    lacks = [line for line, arrived in sending.tell() if not arrived]
    for line, arrived in sending.tell():
        if arrived and not as_json:
            tell(line, err=False)
    if sending.refused:
        raise SpecError("\n".join(lacks))
    if interruption.requested:
        click.echo(f"Stopped by {interruption.requested_by}.", err=True)
        click.get_current_context().exit(INTERRUPTED)
    if lacks:
        raise UnavailableError("\n".join(lacks))


@click.command(
    epilog=examples(
        "tuner study events digits",
        "tuner study events digits --follow --kind left --kind lost",
        "tuner study events digits --follow --json",
    )
)
@click.argument("name", type=STUDY)
@storage_option
@click.option("--follow", is_flag=True, help="Wait for new ones, until the study is over.")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice([*KINDS]),
    help="Only events of this kind. Repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print an object on each line, for programs.")
def events(
    name: str, storage: str | None, follow: bool, kinds: tuple[str, ...], as_json: bool
) -> None:
    """Print what has happened to a study, its trials and its workers, one event a line.

    The events of the study that confirms it are among them. It changes nothing in the database.
    """
    from tuner.service.event_feed import EventFeed
    from tuner.service.interruption import Interruption

    def show(event: StudyEvent) -> None:
        if not kinds or event.event.kind in kinds:
            text = json.dumps(event.to_json(), ensure_ascii=False) if as_json else str(event)
            click.echo(text)

    database, study = find_study(name, storage)
    feed = EventFeed(database, study)
    if not follow:
        for event in feed.read():
            show(event)
        return
    with Interruption() as interruption:
        for news in feed.follow(interruption):
            if isinstance(news, UnavailableError):
                click.echo(f"{news} Events follow once it is back.", err=True)
            else:
                show(news)
    if interruption.requested:
        click.get_current_context().exit(INTERRUPTED)
