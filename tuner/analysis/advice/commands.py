"""Commands that act on advice, as a person types them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Mapping
from typing import Any

from tuner.analysis.edges import AxisPath
from tuner.domain.catalog.dimensions import Dimension, dump_dimension
from tuner.domain.command import Process
from tuner.domain.command_rules import keep_schedule
from tuner.domain.regimes import SCRATCH
from tuner.domain.search import COMPARE, share_out
from tuner.domain.spec import StudySpec
from tuner.domain.study_file import apply_settings, parse_spec
from tuner.errors import SpecError

Axes = Mapping[AxisPath, Dimension]
"""Axes by where they stand in a study file."""

_KEPT = ("study", "budget", "search", "own", "train", "process", "confirm")
_NOT_KEPT = {
    ("study", "name"),
    ("study", "workload"),
    ("study", "command"),
    ("search", "warm_start"),
}
_COUNTING = ("budget", "process")
"""Tables of plain settings, in which a whole number may stand for a real one."""

_IN_DOUBLE_QUOTES = re.compile(r'["$`\\!]')
"""Characters that mean something to a shell within double quotes."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BARE_TEXT = re.compile(r"(?!true$|false$|inf$|nan$)[A-Za-z][A-Za-z_]*")


def join(*words: str) -> str:
    """Returns a command of several words, quoted for a shell."""
    return " ".join(map(_quote, ("tuner", *words)))


def _quote(word: str) -> str:
    """Returns a word for a shell; one with quotes of its own in double quotes, if these do."""
    if "'" in word and not _IN_DOUBLE_QUOTES.search(word):
        return f'"{word}"'
    return shlex.quote(word)


def search_again(
    spec: StudySpec,
    suffix: str,
    changes: Mapping[str, Any],
    *,
    optimizers: Collection[str] = (),
    axes: Axes | None = None,
) -> str | None:
    """Returns the command of a study that is as another one but for a few changes.

    Args:
        spec: The other study's spec, resolved.
        suffix: The end of the new one's name, after the other's name and a dot.
        changes: New values by key, such as ``{"search.pruner": "none"}``.
        optimizers: The optimizers that compete; none for those of the other study.
        axes: Axes of hyperparameters to set.

    Returns:
        The command, or None where the rules of study files do not allow such a study.
    """
    competing = tuple(optimizers) or spec.space.optimizers
    plain = {key: _shorten(key.partition(".")[0], value) for key, value in changes.items()}
    settings = {**settings_of(spec), **axes_of(spec, axes or {}, competing), **plain}
    typed = [f"{key}={write_value(value)}" for key, value in settings.items()]
    name = f"{spec.study.name}.{suffix}"
    tree: dict[str, Any] = {
        "study": {"name": name, **code_of(spec)},
        "space": {"optimizers": list(competing)},
    }
    try:
        parse_spec(apply_settings(tree, typed), origin="advice").resolve()
    except SpecError:
        return None
    option = "--workload" if spec.study.command is None else "--command"
    words = ["run", option, spec.study.workload, "--name", name]
    words += ["--optimizers", ",".join(competing)]
    return join(*words, *(word for setting in typed for word in ("--set", setting)))


def code_of(spec: StudySpec) -> dict[str, Any]:
    """Returns the part of a study's ``[study]`` table that says what it trains."""
    if spec.study.command is None:
        return {"workload": spec.study.workload}
    return {"command": list(spec.study.command)}


def write_value(value: Any) -> str:
    """Returns a value as ``--set`` takes it: TOML on one line, and simple texts without quotes.

    >>> write_value({"low": 1e-4, "log": True}), write_value("none")
    ('{low = 0.0001, log = true}', 'none')
    """
    if isinstance(value, str) and _BARE_TEXT.fullmatch(value):
        return value
    return write_toml(value)


def write_toml(value: Any) -> str:
    """Returns a plain value as TOML on one line."""
    if isinstance(value, Mapping):
        pairs = (f"{write_key(key)} = {write_toml(one)}" for key, one in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(write_toml, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value)


def write_key(key: str) -> str:
    """Returns a key of a table as TOML."""
    return key if _BARE_KEY.fullmatch(key) else json.dumps(key, ensure_ascii=False)


def settings_of(spec: StudySpec) -> dict[str, Any]:
    """Returns the settings of a spec that a study file needs to say, by dotted key.

    Its name, its workload, its optimizers and its warm start are left out.
    """
    study = {"name": "a", "workload": "a:a"}
    usual = StudySpec.model_validate({"study": study}).model_dump(mode="json")
    if spec.study.command is not None:
        usual["process"] = Process().model_dump(mode="json")
        usual["space"] |= keep_schedule({"study": code_of(spec)}).get("space", {})
    own = spec.model_dump(mode="json", exclude_none=True)
    found: dict[str, Any] = {}
    for table in _KEPT:
        for key, value in own.get(table, {}).items():
            if value != (usual.get(table) or {}).get(key) and (table, key) not in _NOT_KEPT:
                found[f"{table}.{key}"] = _shorten(table, value)
    if spec.budget.full_trials is not None:  # which would else say how many trials there are
        found["budget.trials"] = spec.budget.trials
    if spec.search.mode == COMPARE:  # a trial that ran again may have made it one more
        size = "trials" if spec.budget.full_trials is None else "full_trials"
        shared = share_out(getattr(spec.budget, size), len(spec.space.optimizers))
        found[f"budget.{size}"] = shared
    if own["space"]["schedules"] != list(usual["space"]["schedules"]):
        found["space.schedules"] = own["space"]["schedules"]
    if spec.space.breadth is not None:
        found["space.breadth"] = spec.space.breadth
    if spec.space.regime not in (None, SCRATCH):
        found["space.regime"] = spec.space.regime
    return found


def _shorten(table: str, value: Any) -> Any:
    """Returns a setting as people write it: 8 epochs, not 8.0."""
    whole = table in _COUNTING and isinstance(value, float) and value.is_integer()
    return int(value) if whole else value


def axes_of(
    spec: StudySpec, axes: Axes, competing: Collection[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Returns the tables of axes that a study file sets, with others in their place or beside them.

    Args:
        spec: A resolved spec.
        axes: The others.
        competing: The optimizers of the new study; axes of others are left out.
    """
    tables: dict[str, dict[str, dict[str, Any]]] = {}
    for table, rows in spec.tables().items():
        for row, own in rows.items():
            for key, axis in own.items():
                if f"{table}.{row}.{key}" in (spec.written or ()):
                    tables.setdefault(table, {}).setdefault(row, {})[key] = dump_dimension(axis)
    for network, rows in spec.network.items():
        for row, own in rows.items():
            known = tables.setdefault(f"network.{network}", {}).setdefault(row, {})
            known |= {key: dump_dimension(axis) for key, axis in own.items()}
    for (table, row, key), axis in axes.items():
        tables.setdefault(table, {}).setdefault(row, {})[key] = dump_dimension(axis)
    for table, rows in tables.items():
        if table not in ("schedule", "average"):
            tables[table] = {row: own for row, own in rows.items() if row in competing}
    return {table: rows for table, rows in tables.items() if rows}
