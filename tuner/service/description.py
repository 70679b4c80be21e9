"""The description of a study: a study file, or values as in one, read into a spec."""

from __future__ import annotations

import copy
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

from tuner.domain.names import IMPORT_STRING
from tuner.domain.spec import StudySpec
from tuner.domain.study_file import apply_settings, parse_spec, read_spec, set_value
from tuner.errors import NotFoundError, TunerError


def describe_study(
    source: str | Path | Mapping[str, Any] | None,
    values: Mapping[str, Any],
    settings: Iterable[str] = (),
    *,
    origin: str,
    storage: str | None = None,
) -> StudySpec:
    """Returns the study that a file, or a table, and further values describe.

    Args:
        source: The path of a study file, or its tables; None for values alone. Without a name the
            study gets the file's, else the workload's in small letters, or that of the command's
            script.
        values: Values by dotted key, such as ``space.optimizers``; None leaves one as it is.
        settings: ``key=value`` texts that come last.
        origin: Where all this comes from, for messages.
        storage: The database's URL. A study in it may be what a missing file was meant to be.

    Returns:
        The study, not resolved.

    Raises:
        NotFoundError: If the file does not exist.
        SpecError: If something breaks a rule.
    """
    if isinstance(source, Mapping):
        tree = {key: copy.deepcopy(value) for key, value in source.items()}
    else:
        tree = {} if source is None else _read_file(str(source), storage)
    for key, value in values.items():
        if value is not None:
            set_value(tree, key, value)
    section = tree.get("study")
    if isinstance(section, dict) and "name" not in section:
        section |= _name_after(section)
    return parse_spec(apply_settings(tree, settings), origin=origin)


def _name_after(section: Mapping[str, Any]) -> dict[str, str]:
    """Returns the name of a study that has none: its workload's, or its command's script's."""
    match section:
        case {"workload": str(workload)}:
            return {"name": workload.rpartition(":")[2].lower()}
        case {"command": [_, *_] as words} if all(isinstance(word, str) for word in words):
            scripts = [word for word in words[1:] if not word.startswith("-")]
            return {"name": PurePath((scripts or words)[0]).stem}
    return {}


def _read_file(path: str, storage: str | None) -> dict[str, Any]:
    """Reads a study file, or tells what its name may stand for instead.

    Raises:
        NotFoundError: If it does not exist.
        SpecError: If it is not TOML, or a suite's file.
    """
    try:
        return read_spec(Path(path))
    except NotFoundError as error:
        meant = ""
        if re.fullmatch(IMPORT_STRING, path):
            meant = f" To train a workload: --workload {path}"
        elif not path.endswith(".toml") and _has_study(path, storage):
            meant = f" To go on with the study {path!r}: tuner study run {shlex.quote(path)}"
        raise NotFoundError(f"{error}{meant}") from None


def _has_study(name: str, storage: str | None) -> bool:
    """Tells whether there is a study of a name; False without a database, or one of ours."""
    from tuner.store import Studies, default_url, open_database

    try:
        database = open_database(storage or default_url())
    except TunerError:
        return False
    try:
        return Studies(database).get(name) is not None
    except TunerError:
        return False
    finally:
        database.close()
