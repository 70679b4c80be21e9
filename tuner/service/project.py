"""A project to start from: a copy of a template that comes with tuner.

The template ``class`` is the folders ``models`` and ``studies``; each folder of ``examples`` is one
more, with the README that all of them share unless it has one of its own. So what is written is
what the tests of this repository run.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tuner.domain.names import suggest
from tuner.errors import NotFoundError, SpecError, StorageError

_PACKAGE = Path(__file__).parents[1]
_EXAMPLES = "examples"
_STUDY, _README = "study.toml", "README.md"
_COPIED = (".md", ".py", ".toml")

CLASS = "class"
"""The template of workload classes, which is written if none is named."""

_CLASS_PARTS, _CLASS_STUDY = (_README, "models", "studies"), "studies/digits.toml"


@dataclass(frozen=True)
class Project:
    """A project that has been written.

    Attributes:
        files: Its files, relative to its folder.
        study: The study file to run first, relative to its folder.
        missing: What pip is to install of the packages that its code imports: an extra of tuner's
            where there is one of that name.
    """

    files: tuple[Path, ...]
    study: Path
    missing: tuple[str, ...]


def template_names() -> list[str]:
    """Returns the names of the templates, the one of workload classes first."""
    home = _find_home(_EXAMPLES)
    folders = [] if home is None else sorted(home.iterdir())
    return [CLASS, *(_to_name(folder) for folder in folders if (folder / _STUDY).is_file())]


def write_project(folder: Path, template: str = CLASS) -> Project:
    """Writes a project that runs as it is.

    Args:
        folder: The folder to write to; it is made if it does not exist.
        template: The name of the template.

    Raises:
        NotFoundError: If there is no such template.
        SpecError: If one of the files exists already; nothing is written then.
        StorageError: If the folder cannot be written; files written before are removed.
    """
    files = _template_files(template)
    existing = [str(name) for name in files if os.path.lexists(folder / name)]
    if existing:
        raise SpecError(
            f"{folder}: {', '.join(existing)} already there: nothing has been written. "
            "Choose an empty folder."
        )
    try:
        with ExitStack() as undo:
            for name, source in files.items():
                target = folder / name
                for parent in reversed(target.parents):
                    if not parent.is_dir():
                        parent.mkdir()
                        undo.callback(parent.rmdir)
                undo.callback(target.unlink, missing_ok=True)
                shutil.copyfile(source, target)
            undo.pop_all()
    except OSError as error:
        where = error.filename or folder
        raise StorageError(
            f"{where}: cannot be written: {error.strerror}. Nothing has been left there."
        ) from error
    study = Path(_CLASS_STUDY if template == CLASS else _STUDY)
    return Project(tuple(files), study, _find_missing(files))


def _template_files(template: str) -> dict[Path, Path]:
    """Returns the paths of a template's files by their paths in a project."""
    if template == CLASS:
        parts = {part: _find_home(part) for part in _CLASS_PARTS}
        if None in parts.values():
            raise NotFoundError("This installation of tuner lacks its templates: install it anew.")
        homes = [home for home in parts.values() if home is not None]
        return {path.relative_to(home.parent): path for home in homes for path in _list_files(home)}
    home = _find_home(_EXAMPLES)
    for example in [] if home is None else home.iterdir():
        if _to_name(example) == template and (example / _STUDY).is_file():
            files = {path.relative_to(example): path for path in _list_files(example)}
            return {Path(_README): example.parent / _README} | files
    raise NotFoundError(
        f"--template {template}: there is none such: {suggest(template, template_names())}"
    )


def _to_name(example: Path) -> str:
    """Returns the name of the template that a folder of examples is."""
    return example.name.replace("_", "-")


def _find_home(part: str) -> Path | None:
    """Returns where a part of the templates lies; None where this installation lacks it."""
    # The wheel carries the folders inside; in a checkout they lie beside the package.
    homes = (_PACKAGE / "template" / part, _PACKAGE.parent / part)
    return next((home for home in homes if home.exists()), None)


def _list_files(home: Path) -> list[Path]:
    """Returns the files of a part that belong to a project."""
    found = [home] if home.is_file() else sorted(home.rglob("*"))
    return [
        path
        for path in found
        if path.suffix in _COPIED
        and not any(name.startswith((".", "__pycache__")) for name in path.relative_to(home).parts)
    ]


def _find_missing(files: dict[Path, Path]) -> tuple[str, ...]:
    """Returns what pip is to install of the packages that a project's code imports."""
    own = {name.stem for name in files} | {name.parts[0] for name in files}
    imported = {
        name.partition(".")[0]
        for source in files.values()
        if source.suffix == ".py"
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        for name in _imports_of(node)
    }
    extras = metadata.metadata("tuner").get_all("Provides-Extra") or []
    return tuple(
        f"tuner[{name}]" if name in extras else name
        for name in sorted(imported - own)
        if importlib.util.find_spec(name) is None
    )


def _imports_of(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module]
    return []
