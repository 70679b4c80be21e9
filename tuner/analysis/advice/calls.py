"""Advice on studies whose workload was passed as an object: calls of a program, not commands."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from tuner.analysis.advice.evidence import Advice
from tuner.domain.passed import IMPORTED, Passed, write_name
from tuner.domain.study_file import apply_settings


def to_calls(advice: Iterable[Advice], passed: Passed) -> Iterator[Advice]:
    """Yields advice with calls in place of commands that would train.

    Of a study that was imported nothing can train, and what would is left out.

    Args:
        advice: The advice.
        passed: The place of the study's workload.
    """
    for one in advice:
        words = shlex.split(one.command)
        if not _trains(words):
            yield one
        elif passed.module != IMPORTED:
            yield replace(one, command=write_call(words, write_name(passed)))


def _trains(words: Sequence[str]) -> bool:
    return words[1:2] == ["run"] or words[1:3] in (["study", "run"], ["study", "confirm"])


def write_call(words: Sequence[str], workload: str) -> str:
    """Returns the call that does what a command does that trains.

    >>> write_call(["tuner", "study", "run", "digits", "--trials", "60"], "train")
    "tuner.Study('digits', workload=train).run(trials=60)"
    >>> write_call("tuner run --workload a:b --name c --set budget.steps=9".split(), "train")
    "tuner.Study.create(workload=train, name='c', settings={'budget.steps': 9}).run()"

    Args:
        words: The words of the command.
        workload: The name of the workload in the program.
    """
    if words[1] == "study":
        values = zip(words[4::2], words[5::2], strict=False)
        arguments = ", ".join(f"{option[2:]}={value}" for option, value in values)
        return f"tuner.Study({words[3]!r}, workload={workload}).{words[2]}({arguments})"
    given = list(zip(words[2::2], words[3::2], strict=False))
    named = {option: value for option, value in given if option != "--set"}
    settings: dict[str, object] = {}
    for option, text in given:
        if option == "--set":
            key = text.partition("=")[0]
            settings |= {key: _value_of(text, key)}
    arguments = f"workload={workload}, name={named['--name']!r}"
    if "--optimizers" in named:
        arguments += f", optimizers={named['--optimizers'].split(',')}"
    if settings:
        arguments += f", settings={settings!r}"
    return f"tuner.Study.create({arguments}).run()"


def _value_of(setting: str, key: str) -> object:
    """Returns the value that a ``key=value`` text sets."""
    value: object = apply_settings({}, [setting])
    for part in key.split("."):
        value = value[part]  # type: ignore[index]
    return value
