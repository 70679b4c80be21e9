"""The reference of the command line, from click's commands."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

from tuner.cli.main import cli


def write_command_line() -> str:
    """Returns the page: each command with its usage, its help, its options and its examples."""
    head = [
        "# The command line",
        "",
        "What each command takes, as the commands say it under `--help`. Which one does what, exit "
        "codes and environment variables: [commands](../commands.md).",
        "",
    ]
    return "\n".join([*head, *_lines_of(cli, ("tuner",))]) + "\n"


def _lines_of(command: click.Command, path: tuple[str, ...]) -> Iterator[str]:
    """Yields the lines about a command, then about those of its group."""
    context = click.Context(command, info_name=" ".join(path))
    yield f"{'#' * min(1 + len(path), 4)} {' '.join(path)}"
    yield ""
    yield from _paragraphs(command.help or "")
    yield from ("```text", command.get_usage(context).removeprefix("Usage: "), "```", "")
    yield from _options(command, context)
    yield from _examples(command.epilog or "")
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.commands[name]
            if not below.hidden:
                yield from _lines_of(below, (*path, name))


def _paragraphs(text: str) -> Iterator[str]:
    """Yields help as Markdown: what would be a mark there is escaped."""
    for paragraph in re.split(r"\n\s*\n", text.replace("\b", "")):
        words = " ".join(paragraph.split())
        if words:
            yield _escape(re.sub(r"'(tuner [^']+)'", r"`\1`", words))
            yield ""


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    """Yields a table of a command's options, as ``--help`` lists them."""
    rows = [
        record
        for parameter in command.get_params(context)
        if isinstance(parameter, click.Option)  # arguments stand in the usage
        and (record := parameter.get_help_record(context)) is not None
    ]
    if not rows:
        return
    yield "| option | meaning |"
    yield "| --- | --- |"
    for names, meaning in rows:
        yield f"| `{_cell(names)}` | {_cell(_escape(' '.join(meaning.split())))} |"
    yield ""


def _examples(epilog: str) -> Iterator[str]:
    """Yields the examples of a command as a block to copy."""
    lines = [line.strip() for line in epilog.replace("\b", "").splitlines()]
    commands = [line for line in lines if line.startswith("tuner ")]
    if commands:
        yield from ("```sh", *commands, "```", "")


def _escape(text: str) -> str:
    """Returns text in which no letter is a mark of Markdown or HTML, but for code."""
    parts = text.split("`")
    plain = [re.sub(r"([*_<>\[\]])", r"\\\1", part) for part in parts[::2]]
    mixed = [plain[0]]
    for code, after in zip(parts[1::2], plain[1:], strict=True):
        mixed += ["`", code, "`", after]
    return "".join(mixed)


def _cell(text: str) -> str:
    """Returns text for a cell of a table."""
    return text.replace("|", "\\|")
