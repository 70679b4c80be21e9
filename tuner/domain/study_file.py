"""The study file: read from TOML, changed by ``--set``, checked with errors a person can act on."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from tuner.domain.groups import Group
from tuner.domain.names import find_nearest, read_typed, suggest
from tuner.domain.printable import cut
from tuner.domain.spec import StudySpec
from tuner.errors import NotFoundError, SpecError

M = TypeVar("M", bound=BaseModel)

_TOO_DEEP = "lists or tables are nested too deeply: no value needs more than a few levels"
_TOO_LARGE = "an integer needs more than 64 bits"
_ECHOED = 120
"""Letters of a value that are shown of one that breaks a rule."""

_LENGTHS = {"steps", "epochs", "examples"}
_AXIS_KEYS = ["low", "high", "log", "choices"]
_TRAIN_AXES = [["train", key] for key in ("batch_size", "average", "momentum_warmup")]


def read_spec(path: Path, settings: Iterable[str] = ()) -> dict[str, Any]:
    """Reads a study file into a plain tree, without checking its keys and values.

    Args:
        path: The TOML file; its stem is the study's name where the file gives none.
        settings: ``key=value`` texts that replace values, such as ``budget.trials=20``.

    Returns:
        The tree, for :func:`parse_spec`.

    Raises:
        NotFoundError: If the file does not exist.
        SpecError: If it is not TOML, or a suite's file.
    """
    tree = read_tree(path, example="a study file, such as studies/digits.toml")
    if isinstance(tree.get("workload"), list):
        raise SpecError(f"{path} describes a suite of studies: 'tuner suite run' takes it.")
    if isinstance(tree.get("study", {}), dict):
        tree.setdefault("study", {}).setdefault("name", read_typed(path.stem))
    return apply_settings(tree, settings)


def read_tree(path: Path, *, example: str) -> dict[str, Any]:
    """Reads a TOML file into a plain tree.

    Args:
        path: The file.
        example: The kind of file that is meant, with the path of one, for the message without it.

    Raises:
        NotFoundError: If the file does not exist.
        SpecError: If it is not TOML, or cannot be read.
    """
    try:
        return _parse_toml(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise NotFoundError(f"{path}: no such file. {_advise(path, example)}") from None
    except ValueError as error:
        raise SpecError(f"{path}: not valid TOML: {error}.") from None
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}.") from None


def _advise(path: Path, example: str) -> str:
    """Returns the advice to a user who named a file that does not exist."""
    folders = (path.parent / "studies", path.parent)
    there = {each.stem: each for folder in folders for each in sorted(folder.glob("*.toml"))}
    nearest = find_nearest(path.name.removesuffix(".toml"), there)
    return f"Did you mean {there[nearest]}?" if nearest else f"Give the path of {example}."


def apply_settings(tree: dict[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """Returns the tree with ``key=value`` settings applied.

    Raises:
        SpecError: If a setting has no ``=`` or its key runs through something that is no table.
    """
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator or not key.strip():
            raise SpecError(f"--set {setting}: write key=value, such as budget.trials=20.")
        try:
            set_value(tree, key.strip(), _parse_value(text.strip()))
        except SpecError as error:
            raise SpecError(f"--set {setting}: {error}") from None
    return tree


def set_value(tree: dict[str, Any], key: str, value: Any) -> None:
    """Sets a value in a tree by its dotted key; one length of a trial replaces another.

    Raises:
        SpecError: If the key runs through something that is no table.
    """
    *tables, leaf = key.split(".")
    node = tree
    for table in tables:
        node = node.setdefault(table, {})
        if not isinstance(node, dict):
            raise SpecError(f"{key}: {table} is a value here, not a table: write [{table}].")
    node[leaf] = value
    if tables == ["budget"] and leaf in _LENGTHS:
        for other in _LENGTHS - {leaf}:
            node.pop(other, None)


def set_tables(tree: dict[str, Any], tables: Mapping[str, Mapping[str, Any]]) -> None:
    """Sets the values of some tables in a tree; others that these tables hold there stay.

    Raises:
        SpecError: If one of the tables is a value in the tree.
    """
    for table, values in tables.items():
        for key, value in values.items():
            set_value(tree, f"{table}.{key}", value)


def parse_spec(tree: Mapping[str, Any], *, origin: str) -> StudySpec:
    """Checks a tree and builds the study it describes.

    Args:
        tree: Tables and values as in a study file.
        origin: Where the tree comes from, for messages.

    Returns:
        The study, not resolved.

    Raises:
        SpecError: With one line for every key that breaks a rule.
    """
    return parse_tables(StudySpec, tree, origin=origin)


def parse_tables(model: type[M], tree: Mapping[str, Any], *, origin: str) -> M:
    """Checks a tree and builds the object it describes.

    Args:
        model: The class of the object.
        tree: Tables and values as in its file.
        origin: Where the tree comes from, for messages.

    Raises:
        SpecError: With one line for every key that breaks a rule.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        problems = _distinct(error.errors())
        lines = [f"{origin}: {_explain(problem, model)}" for problem in problems]
        raise SpecError("\n".join(lines)) from None
    except RecursionError:
        raise SpecError(f"{origin}: {_TOO_DEEP}.") from None


def _parse_value(text: str) -> Any:
    try:
        return _parse_toml(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    except ValueError as error:
        raise SpecError(f"{error}.") from None


def _parse_toml(text: str) -> dict[str, Any]:
    """Reads TOML, with integers of 64 bits as its rules have them.

    Raises:
        TOMLDecodeError: If it is none.
        ValueError: If it is one with larger integers, or nested too deeply.
    """
    try:
        tree = tomllib.loads(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:  # Python's limit of the digits it reads
        raise ValueError(_TOO_LARGE) from None
    values: list[Any] = [tree]
    while values:
        value = values.pop()
        if isinstance(value, dict | list):
            values += value.values() if isinstance(value, dict) else value
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError(_TOO_LARGE)
    return tree


def _distinct(problems: Iterable[Any]) -> list[Any]:
    """Keeps one problem a value: a union reports every branch, a list its items and itself."""
    kept: dict[tuple[Any, ...], Any] = {}
    for problem in problems:
        if problem["type"] == "default_factory_not_called":  # for another key's problem
            continue
        location = problem["loc"][: 4 if problem["loc"][:1] == ("network",) else 3]
        if not any(location == known[: len(location)] for known in kept):
            kept[location] = problem
    return list(kept.values())


def _explain(problem: Mapping[str, Any], model: type[BaseModel]) -> str:
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    match problem["type"]:
        case _ if "choices" in location[1:]:
            del location[location.index("choices") + 1 :]
            message = "each choice is a number, a text, true or false"
        case "missing":
            return f"{key} is missing: add it."
        case "extra_forbidden":
            known = _keys_at(location[:-1], model)
            advice = suggest(location[-1], known) if known else "remove it"
            return f"{key} is not a known key: {advice}"
        case "value_error":
            message = str(problem["ctx"]["error"])
        case "string_pattern_mismatch" if location[-1] == "workload":
            message = "must be an import string such as models.digits:Digits"
        case "string_pattern_mismatch":
            message = "must not start with '-' or a space, nor hold a slash or a line break"
        case "tuple_type":
            message = "must be a list"
        case "too_short":
            message = "must hold at least 1 item"
        case "dict_type" | "model_type" | "model_attributes_type":
            message = "must be a table"
        case _:
            message = problem["msg"][0].lower() + problem["msg"][1:]
    value = problem["input"]
    shown = "" if isinstance(value, dict) and len(location) < 2 else f" = {_echo(value)}"
    text = f"{key}{shown}: {message}" if key else message
    return text if text.endswith("?") else f"{text}."


def _echo(value: Any) -> str:
    """Returns a value as it stands in a study file, cut where it is long."""
    try:
        return cut(_show(value), _ECHOED)
    except RecursionError:
        return "(nested too deeply)"


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_show(v)}" for k, v in value.items()) + " }"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(list(value)) if isinstance(value, tuple) else repr(value)


def _keys_at(location: list[str], model: Any) -> list[str]:
    """Returns the keys known in a table, by its path; an axis knows those of every form."""
    if (
        set(location[:1]) & {"optimizer", "schedule", "average", "network", "own"}
        or location in _TRAIN_AXES
    ):
        return _AXIS_KEYS
    if location[:2] == ["train", "groups"]:
        return _AXIS_KEYS if len(location) > 3 else list(Group.model_fields)
    if location[:1] in (["warm_start"], ["confirmation"]):  # written by tuner alone
        return []
    for part in location:
        model = model.model_fields[part].annotation
    return list(model.model_fields)
