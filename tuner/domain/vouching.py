"""A study may run code, or a command, that a user has typed; here both are allowed together."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from tuner.domain.allowed_commands import ALLOW_COMMAND, vouch_for_command
from tuner.domain.imports import ALLOW, vouch_for
from tuner.domain.spec import StudySpec


@dataclass(frozen=True)
class Typed:
    """The names of code, and the command, that a user has typed.

    Attributes:
        names: Import strings.
        command: The words of the command, or None.
    """

    names: tuple[str, ...] = ()
    command: tuple[str, ...] | None = None


def typed_in(spec: StudySpec) -> Typed:
    """Returns what a study that a user describes names to run."""
    code = (spec.search.sampler, spec.search.pruner)
    if spec.study.command is not None:
        return Typed(code, spec.study.command)
    return Typed((spec.study.workload, *code))


def vouch_for_study(spec: StudySpec) -> None:
    """Allows what a study names to this process and those it starts."""
    _vouch(typed_in(spec))


@contextlib.contextmanager
def vouching(typed: Typed) -> Iterator[None]:
    """Allows what a user has typed to this process, and those it starts, within the block."""
    before = {name: os.environ.get(name) for name in (ALLOW, ALLOW_COMMAND)}
    _vouch(typed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _vouch(typed: Typed) -> None:
    vouch_for(typed.names)
    vouch_for_command(typed.command)
