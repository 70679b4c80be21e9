"""The names and signatures that users build on change on purpose only."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from website.python_api import ROOMS, public_names

GOLDEN = Path(__file__).parent / "public_api.txt"

CONSTRUCTED = {
    "tuner.Data",
    "tuner.Study",
    "tuner.optim.CompositeOptimizer",
    "tuner.optim.Lookahead",
    "tuner.optim.YellowFin",
}
"""The classes that users construct themselves; the others are handed to them."""


def test_names_and_signatures_are_as_they_were() -> None:
    assert GOLDEN.read_text() == write_api(), (
        "the public API has changed: if it should, write it anew with "
        "`python -m tests.test_public_api`, and tell users in CHANGELOG.md"
    )


@pytest.mark.parametrize("room", ROOMS)
def test_everything_public_says_what_it_takes_gives_and_raises(room: str) -> None:
    for where, value in things(room):
        text = inspect.getdoc(value)
        assert text, f"{where} has no docstring"
        if inspect.isroutine(value):
            if "see :meth:`tuner.Run." in text:  # the same arguments, described in one place
                continue
            for name in arguments(value):
                assert f"{name}:" in text or f"`{name}`" in text, (
                    f"{where}: its docstring does not say what {name} is"
                )


def things(room: str) -> Iterator[tuple[str, object]]:
    """Yields the public names of a room and those in its classes, each with what it is."""
    module = importlib.import_module(room)
    for name in sorted(public_names(room)):
        value = getattr(module, name)
        if not (inspect.isclass(value) or inspect.isroutine(value)):
            continue
        yield f"{room}.{name}", value
        if inspect.isclass(value):
            for member, held in sorted(vars(value).items()):
                inner = held.__func__ if isinstance(held, (staticmethod, classmethod)) else held
                shown = isinstance(inner, property) or inspect.isfunction(inner)
                if shown and not member.startswith("_"):
                    yield f"{room}.{name}.{member}", inner


def arguments(value: object) -> list[str]:
    """Returns the names of a function's arguments."""
    if not callable(value):
        return []
    return [name for name in inspect.signature(value).parameters if name not in ("self", "cls")]


def write_api() -> str:
    """Returns the public names, a line each, with their signatures."""
    return "\n".join(line for room in ROOMS for line in lines(room)) + "\n"


def lines(room: str) -> Iterator[str]:
    module = importlib.import_module(room)
    for name in sorted(public_names(room)):
        value = getattr(module, name)
        if not (inspect.isclass(value) or inspect.isroutine(value)):
            yield f"{room}.{name}"
    for where, value in things(room):
        if inspect.isclass(value):
            yield f"{where}{inspect.signature(value) if where in CONSTRUCTED else ''}"
            if dataclasses.is_dataclass(value):
                fields = [field for field in dataclasses.fields(value) if field.repr]
                yield from (f"{where}.{field.name}: {field.type}" for field in fields)
        elif isinstance(value, property):
            returned = inspect.signature(value.fget).return_annotation if value.fget else ""
            yield f"{where}: {returned}"
        elif callable(value):
            yield f"{where}{inspect.signature(value)}"


if __name__ == "__main__":
    GOLDEN.write_text(write_api(), encoding="utf-8")
