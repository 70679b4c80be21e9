"""The reference of study and suite files, from the models that read them and their docstrings."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import griffe
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tuner.domain.budget import parse_duration
from tuner.domain.catalog.dimensions import Dimension, Fixed
from tuner.domain.groups import Group
from tuner.domain.spec import StudySpec
from tuner.domain.suite import SuiteFile, SuiteSection, Table, WorkloadTable

_STORED = "None in a file"
"""What the docstring says of a key of a stored spec that no file holds."""

_TITLES = {
    "optimizer": "`[optimizer.NAME]`",
    "schedule": "`[schedule.NAME]`",
    "average": "`[average.NAME]`",
    "network": "`[network.NAME.OPTIMIZER]`",
}
"""How the tables of axes are written, where it is not by their name alone."""

_CATALOG = "The keys are hyperparameters of the [catalog](../optimizers.md)."

_KEYS = {"own": "The keys are names of your own."}
"""What the keys of a table of axes are, where they are none of the catalog's."""

_AXIS = "value, `{ low, high, log }` or `{ choices }`"

_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "length ≥"}


def write_study_file() -> str:
    """Returns the page: each key with its type, its bounds, its default and its meaning."""
    return "\n".join([*_study(), *_suite()]) + "\n"


def _study() -> Iterator[str]:
    yield from (
        "# Keys of study and suite files",
        "",
        "Every key with its type, its bounds and its default, from the models that read the "
        "files. What they are for, with examples: [the study file](../study-file.md), "
        "[suites](../suites.md). Ranges of hyperparameters: "
        "[optimizers and schedules](../optimizers.md).",
        "",
        "A *range* may stand wherever the table says so: `{ low = 1e-4, high = 0.1, log = true }`.",
        "",
    )
    meanings = _meanings(StudySpec)
    for name, field in StudySpec.model_fields.items():
        if _STORED in meanings[name]:
            continue
        table = _model_of(field.annotation)
        if table is not None:
            yield from _table(table, f"`[{name}]`")
        else:
            yield from (f"## {_TITLES.get(name, f'`[{name}]`')}", "", meanings[name], "")
            yield from (f"Each key is a {_AXIS}. {_KEYS.get(name, _CATALOG)}", "")
    yield from _table(Group, "`[[train.groups]]`")


def _suite() -> Iterator[str]:
    yield from ("## Suite files", "")
    yield from (_summary(SuiteFile), "")
    yield from _table(SuiteSection, "`[suite]`", level=3)
    yield from _table(WorkloadTable, "`[[workload]]`", level=3)


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """Returns the model that reads a table, or None of a table of axes."""
    for one in (annotation, *get_args(annotation)):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one
    return None


def _table(model: type[BaseModel], title: str, level: int = 2) -> Iterator[str]:
    """Yields the section of one table of a file."""
    meanings = _meanings(model)
    yield from (f"{'#' * level} {title}", "", _summary(model), "")
    yield from ("| key | takes | default | meaning |", "| --- | --- | --- | --- |")
    for name, field in model.model_fields.items():
        same = f"As `[{name}]` of a study file." if field.annotation == Table else None
        cells = (f"`{name}`", _taken(field), _default(field), same or meanings[name])
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""


def _taken(field: FieldInfo) -> str:
    """Returns what a key takes: its type, and its bounds."""
    if any(getattr(entry, "func", None) is parse_duration for entry in field.metadata):
        return 'seconds, or text such as `"1h30m"`'
    bounds = [
        f"{sign} {_number(value)}"
        for entry in field.metadata
        for name, sign in _BOUNDS.items()
        if (value := getattr(entry, name, None)) is not None
    ]
    return ", ".join([_type(field.annotation), *bounds])


def _number(value: float) -> str:
    """Returns a bound as people write it.

    >>> _number(2**63), _number(1000000), _number(0.5)
    ('2<sup>63</sup>', '1,000,000', '0.5')
    """
    if isinstance(value, int) and value > 10**9 and value.bit_count() == 1:
        return f"2<sup>{value.bit_length() - 1}</sup>"
    return f"{value:,}" if isinstance(value, int) else f"{value:,g}"


def _type(annotation: Any) -> str:
    """Returns the words for a type.

    >>> _type(int | None)
    'whole number'
    >>> _type(Literal["step", "epoch"])
    '`"step"`, `"epoch"`'
    """
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inner[0])
    if origin is Literal:
        return ", ".join(f"`{json.dumps(value)}`" for value in inner)
    if origin in (Union, types.UnionType) and annotation != Dimension:
        words = [_type(one) for one in inner if one is not type(None)]
        return " or ".join(dict.fromkeys(words))
    if origin is tuple:
        return f"list of {_PLURALS.get(inner[0], 'tables')}"
    return _WORDS.get(annotation, "table")


_WORDS: Mapping[Any, str] = {
    bool: "`true`, `false`",
    int: "whole number",
    float: "number",
    str: "text",
    Dimension: _AXIS,
}
_PLURALS: Mapping[Any, str] = {str: "names", int: "whole numbers", float: "numbers"}


def _default(field: FieldInfo) -> str:
    """Returns a key's default as a file would have it."""
    if field.is_required():
        return "required"
    if field.default_factory_takes_validated_data:
        return "by the other keys"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Fixed):
        value = value.value
    if value is None:
        return "none"
    if value in ((), {}):
        return "none"
    return f"`{json.dumps(value, default=str)}`"


def _summary(model: type[BaseModel]) -> str:
    """Returns the first section of a docstring, on one line."""
    return _words(_sections(model)[0].value)


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """Returns what the docstring of a model says of each of its attributes."""
    found: dict[str, str] = {}
    for section in _sections(model):
        if section.kind is griffe.DocstringSectionKind.attributes:
            found |= {entry.name: _words(entry.description) for entry in section.value}
    return found


def _sections(model: type[BaseModel]) -> list[griffe.DocstringSection]:
    text = griffe.Docstring(model.__doc__ or "", lineno=1)
    return text.parse("google", warnings=False)


def _words(text: str) -> str:
    """Returns text of a docstring as Markdown on one line."""
    return " ".join(text.replace("``", "`").split())
