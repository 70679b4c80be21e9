"""The commands that this process may run, since a user has typed them.

A study comes out of a database, and so does its command. It runs only if it is one that was typed
here, in a study file or by ``--allow-command``, or begins with the words of one that was allowed.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterable, Sequence

from tuner.domain.command import is_launcher, placeholders_of, read_line, write_line
from tuner.errors import SpecError

ALLOW_COMMAND = "TUNER_ALLOW_COMMAND"
"""The environment variable that carries the allowed commands to workers: one line of a shell, or
JSON, a list of lists of words, where null at the end stands for the end of the command."""

_WRAPPERS = ("uv run", "conda run", "mamba run", "pipx run", "accelerate launch", "docker run")

Words = list[str | None]
"""The first words of a command that is allowed; None at the end says that no more may follow."""


def allow_commands(lines: Iterable[str]) -> None:
    """Lets this process, and those it starts, run commands that begin with some words.

    Args:
        lines: The words of each, as one line for a shell.

    Raises:
        SpecError: If a line is empty, leaves a quote open, or would allow any program.
    """
    found: list[Words] = []
    for line in lines:
        words = read_line(line, "--allow-command")
        _refuse_launcher(words, "--allow-command")
        found.append([*words])
    _add(found)


def vouch_for_command(words: Sequence[str] | None) -> None:
    """Allows the command that a user has typed in a study file, to the letter; or none."""
    if words is not None:
        _add([[*words, None]])


def check_allowed(words: Sequence[str]) -> None:
    """Checks that a command may run here, before anything of it does.

    Raises:
        SpecError: If nobody has allowed it.
    """
    known = _allowed()
    if any([*words, None][: len(one)] == one for one in known):
        return
    place = next((i for i, w in enumerate(words) if i and _varies(w)), len(words))
    while place < len(words) and _allows_anything(words[:place]):
        place += 1
    start = list(words[:place])
    option = write_line(["--allow-command", write_line(start)])
    rule = (
        f"this process was started for {'; '.join(map(_write, known))}"
        if known
        else "this process was started for none"
    )
    raise SpecError(
        f"study.command = {write_line(words)!r} was not run: a command that a database names runs "
        f"only if it begins with the words of one that was allowed; {rule}. If you trust it, start "
        f"it with {option}"
    )


def _varies(word: str) -> bool:
    """Tells whether a word is of the part of a command that differs between trials."""
    return bool(list(placeholders_of([word]))) or word.startswith("-")


def _write(words: Words) -> str:
    return write_line([word for word in words if word is not None])


def _refuse_launcher(words: Sequence[str], where: str) -> None:
    if _allows_anything(words):
        raise SpecError(
            f"{where} {write_line(words)!r}: it runs whatever its arguments name, so this would "
            "allow anything. Name the script as well, such as "
            f"{write_line([*words, 'train.py'])!r}."
        )


def _allows_anything(words: Sequence[str]) -> bool:
    """Tells whether words are those of a launcher with options and other launchers, but no script.

    >>> _allows_anything(["python", "-m"]), _allows_anything(["python", "-m", "train"])
    (True, False)
    """
    return is_launcher(words[0]) and all(
        word.startswith("-")
        or is_launcher(word)
        or f"{before} {word}" in _WRAPPERS
        or re.fullmatch(r"\w+=.*|[\d.]+[smh]?", word) is not None
        for before, word in itertools.pairwise(words)
    )


def _allowed() -> list[Words]:
    text = os.environ.get(ALLOW_COMMAND, "").strip()
    if not text:
        return []
    if not text.startswith("["):
        words = read_line(text, ALLOW_COMMAND)
        _refuse_launcher(words, ALLOW_COMMAND)
        return [[*words]]
    try:
        found = json.loads(text)
    except ValueError as error:
        raise SpecError(f"{ALLOW_COMMAND}: no JSON: {error}.") from None
    if not all(
        isinstance(one, list)
        and one
        and all(isinstance(word, str) for word in one[:-1])
        and isinstance(one[-1], str | None)
        for one in found
    ):
        raise SpecError(f"{ALLOW_COMMAND}: give a list of commands, each a list of words.")
    return [list(one) for one in found]


def _add(commands: Sequence[Words]) -> None:
    known = _allowed()
    new = [words for words in commands if words not in known]
    if new:
        os.environ[ALLOW_COMMAND] = json.dumps([*known, *new])
