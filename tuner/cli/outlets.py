"""Options by which a command that trains tells others: curves, and how the study ended."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tuner.cli.words import TEXT
from tuner.errors import TunerError

if TYPE_CHECKING:
    from tuner.service.notices import Ending, Recipient
    from tuner.sinks.targets import Target
    from tuner.store import Database, StudyHandle

F = TypeVar("F", bound=Callable[..., Any])

_STOPPED = 130


class _Lines(click.ParamType[str]):
    """Takes a text of any letters; several in a variable of the environment are its lines."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Returns the text as it was typed."""
        return TEXT.convert(value, param, ctx)

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        """Returns the lines that hold something."""
        return [line.strip() for line in rv.splitlines() if line.strip()]


def targets_option(name: str, *, required: bool = False) -> Callable[[F], F]:
    """Returns what adds an option that names where curves are sent to.

    Args:
        name: The option, such as ``--to``.
        required: Whether one has to be given.
    """
    return click.option(
        name,
        "targets",
        multiple=True,
        required=required,
        type=_Lines(),
        envvar="TUNER_LOG_TO",
        metavar="TOOL:PLACE",
        callback=lambda ctx, _param, texts: () if ctx.resilient_parsing else _parse(texts, name),
        help="Where curves are sent to: tensorboard:FOLDER, mlflow:FOLDER, mlflow:URI or "
        "wandb:PROJECT. Repeatable. [else the lines of $TUNER_LOG_TO]",
    )


def _parse(texts: Sequence[str], option: str) -> tuple[Target, ...]:
    if not texts:
        return ()
    from tuner.sinks.targets import parse_target
    from tuner.store.connection.urls import hide_whole

    targets = tuple(parse_target(text, option) for text in texts)
    for target in targets:
        hide_whole(target.text, str(target))
    return targets


def notify_option(command: F) -> F:
    """Adds ``--notify``."""
    return click.option(
        "--notify",
        multiple=True,
        type=_Lines(),
        envvar="TUNER_NOTIFY",
        metavar="URL|COMMAND",
        callback=lambda ctx, _param, texts: () if ctx.resilient_parsing else _parse_notify(texts),
        help="Whom to tell the end of the study: a webhook, which gets JSON, or a command, which "
        "gets it on standard input and is read by no shell. Repeatable. [else the lines of "
        "$TUNER_NOTIFY]",
    )(command)


def _parse_notify(texts: Sequence[str]) -> tuple[Recipient, ...]:
    if not texts:
        return ()
    from tuner.service.notices import parse_recipient
    from tuner.store.connection.urls import hide_whole

    for text in texts:
        if "://" in text.partition(" ")[0]:
            hide_whole(text, "…")
    return tuple(parse_recipient(text) for text in texts)


@contextlib.contextmanager
def notifying(
    database: Database, study: StudyHandle, recipients: Sequence[Recipient]
) -> Iterator[None]:
    """Tells recipients how a block that trains a study has ended; that fails nothing.

    Args:
        database: The database that holds the study.
        study: The study.
        recipients: Whom to tell.
    """
    try:
        yield
    except click.exceptions.Exit as ended:
        _notify(
            database, study, recipients, "stopped" if ended.exit_code == _STOPPED else "finished"
        )
        raise
    except KeyboardInterrupt:
        _notify(database, study, recipients, "stopped")
        raise
    except Exception as error:
        lines = str(error).strip().splitlines()
        why = f"{type(error).__name__}: {lines[0] if lines else ''}"
        _notify(database, study, recipients, "failed", why)
        raise
    else:
        _notify(database, study, recipients, "finished")


def _notify(
    database: Database,
    study: StudyHandle,
    recipients: Sequence[Recipient],
    ending: Ending,
    error: str = "",
) -> None:
    if not recipients:
        return
    from tuner.service.notices import describe_end
    from tuner.service.summaries import read_summary
    from tuner.store.connection.urls import hide_known_secrets

    try:
        summary = read_summary(database, study)
    except TunerError as why:
        click.echo(f"Warning: --notify: nobody was told how the study ended: {why}", err=True)
        return
    notice = describe_end(summary, ending, hide_known_secrets(error))
    for recipient in recipients:
        failure = recipient.take(notice)
        if failure:
            click.echo(f"Warning: --notify: {recipient} {failure}.", err=True)
