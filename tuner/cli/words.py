"""The words of a command line: groups that suggest the nearest, names that complete themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import click
from click.shell_completion import CompletionItem

from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.schedules import SCHEDULES
from tuner.domain.names import find_nearest, read_typed
from tuner.errors import TunerError

_WHOLE = 1000
"""Letters of a command's summary that a group shows: more than any has."""


class Group(click.Group):
    """Shows the summaries of its commands whole, and suggests the nearest for an unknown name."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes each command with the whole first sentence of its help."""
        rows = [
            (name, command.get_short_help_str(limit=_WHOLE))
            for name in self.list_commands(ctx)
            if (command := self.get_command(ctx, name)) is not None and not command.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Returns the command that the first word names, or suggests the nearest of any group."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            ctx.fail(f"There is no command {name!r}: {_suggest_command(ctx, name)}")
        return super().resolve_command(ctx, args)


class _Text(click.ParamType[str]):
    """Takes a text of any letters, whatever the locale's encoding."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Returns the text as it was typed."""
        return read_typed(value)


TEXT = _Text()
"""The type of a setting, and of other text."""


class _StudyName(_Text):
    """Takes the name of a study, and completes it from the database."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Returns the names of studies that begin so; none where the database cannot be read."""
        from tuner.store import Studies, default_url, open_database

        try:
            database = open_database(ctx.params.get("storage") or default_url())
            try:
                names = Studies(database).names()
            finally:
                database.close()
        except TunerError:
            return []
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


STUDY = _StudyName()
"""The type of a study's name."""


class _Names(_Text):
    """Takes a name of the catalog, or several with commas between them, and completes the last.

    Args:
        known: The names.
    """

    def __init__(self, known: Iterable[str]) -> None:
        self._known = known

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Returns what has been typed with each name that the last one may become."""
        before, comma, last = incomplete.rpartition(",")
        return [
            CompletionItem(f"{before}{comma}{name}")
            for name in self._known
            if name.startswith(last)
        ]


OPTIMIZER_NAMES = _Names(OPTIMIZERS)
"""The type of one optimizer's name, or of several."""

SCHEDULE_NAMES = _Names(SCHEDULES)
"""The type of a schedule's name."""


def _suggest_command(ctx: click.Context, name: str) -> str:
    root = ctx.find_root()
    paths = list(_command_paths(root.command, root.command_path))
    nearest = find_nearest(name, {path[-1] for path in paths})
    if nearest is None:
        return f"see '{ctx.command_path} --help'."
    meant = [" ".join(path) for path in paths if path[-1] == nearest]
    here = [path for path in meant if path.startswith(f"{ctx.command_path} ")]
    return f"did you mean {' or '.join(map(repr, here or meant))}?"


def _command_paths(command: click.Command, *path: str) -> Iterator[tuple[str, ...]]:
    """Yields the words that are typed for each command below one."""
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield (*path, name)
            yield from _command_paths(below, *path, name)
