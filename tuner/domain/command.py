"""A command as a workload: its words with placeholders, and the settings that fill these."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from pydantic import Field, field_validator

from tuner.domain.catalog.averages import AVERAGES
from tuner.domain.catalog.dimensions import Finite, Frozen, Value
from tuner.domain.catalog.optimizers import OPTIMIZERS, USUAL_OPTIMIZERS
from tuner.domain.catalog.schedules import SCHEDULES
from tuner.domain.names import find_nearest
from tuner.domain.printable import printable
from tuner.errors import SpecError

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_NUMBER = re.compile(r"-?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
_PLAIN = re.compile(r"(?:[A-Za-z0-9_@%+=:,./-]|(?<!\{)\{\w+(?:\.\w+)?\}(?!\}))+", re.ASCII)
_OWN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_LAUNCHERS = re.compile(
    r"(python|pypy)[\d.]*|(ba|da|z|k|fi)?sh|env|sudo|nohup|nice|timeout|xargs|uv|uvx|pipx|conda|mamba"
    r"|torchrun|torch\.distributed\.(run|launch)|accelerate|deepspeed|mpirun|mpiexec|srun|ssh|docker|podman|perl|ruby|node|make"
)
"""Programs that run whichever program or code their arguments name."""

OF_TRIAL = ("seed", "split_seed", "trial", "study", "folder", "file", "device")
"""The placeholders that stand for no setting, but for facts of a trial."""

OF_LENGTH = ("steps", "epochs")
"""The placeholders for the length of a trial: the one that ``[budget]`` counts in."""

OPTIMIZER_NAMES = ("optimizer", "optimizer.class")
"""The placeholders that tell which optimizer a trial has: by our name, or by torch's class."""

_OF_TRAIN = ("batch_size", "accumulate", "grad_clip", "precision", "momentum_warmup")
_CHOSEN = (*OPTIMIZER_NAMES, "schedule", "average")

Setting = Value | tuple[Any, ...] | None
"""The value of a placeholder; None where the trial has none."""


class Process(Frozen):
    """The ``[process]`` table: how the process of a command reports, pauses and ends.

    Attributes:
        pattern: A regular expression with named groups for the lines that report: ``step`` or
            ``epoch``, and metrics. Left out, a line reports if it holds the study's metric as
            ``name=number`` or ``name: number``.
        resumable: Whether the command goes on from a checkpoint in its folder: one that it has
            written by the time it reports an evaluation. It can then be paused and taken over.
        grace_s: Seconds from SIGTERM to SIGKILL.
        check_s: Seconds within which the command is to report when it is tried before its study
            exists; 0 tries nothing.
    """

    pattern: str | None = None
    resumable: bool = False
    grace_s: Finite = Field(default=10.0, ge=0.0, le=3600.0)
    check_s: Finite = Field(default=120.0, ge=0.0, le=86_400.0)

    @field_validator("pattern")
    @classmethod
    def _check_pattern(cls, text: str | None) -> str | None:
        if text is None:
            return None
        try:
            groups = re.compile(text).groupindex
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
        if not groups:
            raise ValueError(
                "names nothing that it finds: give its groups names, as in "
                r"'val_loss=(?P<val_loss>\S+) step=(?P<step>\d+)'"
            )
        return text


def check_command(words: Sequence[str]) -> None:
    """Checks the words of a command as far as that needs nothing else of its study.

    Raises:
        ValueError: If a brace stands for nothing, or a value would name the program.
    """
    if not words or not words[0].strip():
        raise ValueError('needs a program, such as ["python", "train.py", "--lr={lr}"]')
    if any("\x00" in word for word in words):
        raise ValueError("no word of a command can hold a NUL character")
    if "/" not in words[0] and words[0].startswith("-"):
        raise ValueError(f"{words[0]!r} reads as an option: the first word names the program")
    if list(placeholders_of(words[:1])):
        raise ValueError(
            f"{words[0]!r} names the program, which no setting may: write it out, and give "
            "settings to its arguments"
        )
    for word in words[1:]:
        if _varies_option(word):
            raise ValueError(f"{word!r} has its option named by a setting: write the option out")
    script = next((word for word in words[1:] if not word.startswith("-")), "")
    if is_launcher(words[0]) and list(placeholders_of([script])):
        raise ValueError(
            f"{script!r} tells {words[0]} what to run, which no setting may: write it out; give "
            "settings to options in one word, such as --lr={lr}"
        )
    list(placeholders_of(words))


def _varies_option(word: str) -> bool:
    if word.startswith("--"):
        return any(placeholders_of([word.partition("=")[0]]))
    return re.match(r"-\{(?!\{)", word) is not None


def is_launcher(program: str) -> bool:
    """Tells whether a program runs whichever program or code its arguments name.

    >>> is_launcher("/usr/bin/python3.11"), is_launcher("./train.sh")
    (True, False)
    """
    return _LAUNCHERS.fullmatch(PurePath(program).name) is not None


def placeholders_of(words: Iterable[str]) -> Iterator[str]:
    """Yields the names in braces of a command, in their order.

    Raises:
        ValueError: If a brace stands alone.
    """
    for word in words:
        for part in _PART.finditer(word):
            if part.group() in ("{{", "}}"):
                continue
            if part.group() in ("{", "}", "{}"):
                raise ValueError(
                    f"{word!r} has a {part.group()} that holds no name: write {{lr}} for a "
                    "setting, {{ and }} for braces as they are"
                )
            yield part.group(1)


def check_placeholders(words: Sequence[str], known: Iterable[str]) -> None:
    """Checks that a command names only settings that there are.

    Raises:
        ValueError: If it names another one; the message lists those there are.
    """
    names = sorted(known)
    for name in placeholders_of(words):
        if name not in names:
            nearest = find_nearest(name, names)
            meant = "" if nearest is None else f"did you mean {{{nearest}}}? "
            raise ValueError(
                f"there is no setting {{{printable(name)}}}: {meant}there are {', '.join(names)}; "
                "for braces as they are, write {{ and }}"
            )


def known_settings(
    optimizers: Iterable[str], schedules: Iterable[str], averages: Iterable[str], own: Iterable[str]
) -> set[str]:
    """Returns the names of all settings that trials of a study may have.

    Args:
        optimizers: The optimizers that compete; those that are tried most count besides.
        schedules: The schedules that compete.
        averages: The averages that compete.
        own: The names of the study's own hyperparameters.
    """
    names = {*OF_TRIAL, *OF_LENGTH, *_OF_TRAIN, *_CHOSEN, *own}
    for name in {*optimizers, *USUAL_OPTIMIZERS}:
        names |= optimizer_settings(name, OPTIMIZERS[name].decode({})).keys()
    for schedule in {*schedules, *SCHEDULES}:
        names |= {f"schedule.{key}" for key in SCHEDULES[schedule].decode({})}
    for average in {*averages, *AVERAGES}:
        names |= {f"average.{key}" for key in AVERAGES[average].decode({})}
    return names


def check_own_name(name: str) -> None:
    """Checks the name of an own hyperparameter of a command.

    Raises:
        ValueError: If it is no plain word, or names another setting.
    """
    if not _OWN_NAME.fullmatch(name):
        raise ValueError(f"own.{name}: use a plain word, such as width")
    if name in _taken():
        raise ValueError(f"own.{name}: {name} is a setting of every study: choose another name")


@functools.cache
def _taken() -> frozenset[str]:
    return frozenset(known_settings((), (), (), ()))


def optimizer_settings(name: str, values: Mapping[str, Value]) -> dict[str, Setting]:
    """Returns the hyperparameters of an optimizer as placeholders name them, in torch's form.

    Those that torch takes as a tuple stand there as a whole, and item by item.

    >>> from tuner.domain.catalog.optimizers import OPTIMIZERS
    >>> settings = optimizer_settings("adam", OPTIMIZERS["adam"].decode({"lr": 0.01}))
    >>> settings["betas"], settings["betas.1"], settings["beta2"]
    ((0.9, 0.999), 0.999, 0.999)
    """
    settings: dict[str, Setting] = dict(values)
    for call in OPTIMIZERS[name].calls(dict(values), 1):
        for key, value in call.arguments.items():
            if isinstance(value, tuple):
                settings[key] = value
                settings |= {f"{key}.{place}": item for place, item in enumerate(value)}
    return settings


def fill(words: Sequence[str], settings: Mapping[str, Setting]) -> list[str]:
    """Returns the words of a command for one trial.

    Each word stays one argument. A word with a setting that the trial does not have is left out,
    and so is an option right before it, such as ``--momentum`` before ``{momentum}``.

    Args:
        words: The command.
        settings: The trial's settings by name; None, or no entry, where it has none.

    Raises:
        SpecError: If a value would be read as an option, or no process can be given it.

    >>> fill(["train", "--lr={lr}", "--momentum", "{momentum}", "{{}}"], {"lr": 0.1})
    ['train', '--lr=0.1', '{}']
    """
    filled: list[str] = []
    option = False
    for word in words:
        names = list(placeholders_of([word]))
        if any(settings.get(name) is None for name in names):
            if option:
                filled.pop()
            option = False
            continue
        text = _PART.sub(lambda part: _replace(part, settings), word)
        _check_argument(word, text)
        filled.append(text)
        option = word.startswith("-") and "=" not in word and not names
    return filled


def _replace(part: re.Match[str], settings: Mapping[str, Setting]) -> str:
    if part.group() in ("{{", "}}"):
        return part.group()[0]
    return write_setting(settings[part.group(1)])


def _check_argument(word: str, text: str) -> None:
    if "\x00" in text:
        raise SpecError(f"A value for {word!r} holds a NUL character, which no process can take.")
    if text.startswith("-") and not word.startswith("-") and not _NUMBER.fullmatch(text):
        raise SpecError(
            f"{text!r} for {word!r} reads as an option: give the value to an option in one word, "
            "such as --name={name}."
        )


def write_setting(value: Setting) -> str:
    """Returns a setting as text, from which a number comes back as it was.

    >>> write_setting((0.9, 0.999)), write_setting(True), write_setting(3e-4)
    ('0.9,0.999', 'true', '0.0003')
    """
    if isinstance(value, tuple):
        return ",".join(map(write_setting, value))
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else str(value)


def write_line(words: Sequence[str]) -> str:
    """Returns a command as one line for a shell; a placeholder alone needs no quotes.

    >>> write_line(["python", "train.py", "--lr={lr}", "a b"])
    "python train.py --lr={lr} 'a b'"
    """
    return " ".join(word if _PLAIN.fullmatch(word) else shlex.quote(word) for word in words)


def read_line(line: str, where: str) -> list[str]:
    """Returns the words of a command that was typed as one line, as a shell would split it.

    Args:
        line: The line.
        where: The option that has it, for the message.

    Raises:
        SpecError: If a quote is not closed, or there is no word.
    """
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise SpecError(f"{where} {line!r}: {error}: close the quote.") from None
    if not words:
        raise SpecError(f"{where} {line!r} is empty: give a command, such as 'python train.py'.")
    return words
