"""Import strings: what a study file names in the user's own code, found from where they work."""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path
from typing import Any

from tuner.errors import SpecError


def import_attribute(import_string: str, where: str) -> Any:
    """Returns what an import string names, looking in the working directory first.

    Args:
        import_string: ``module:attribute``, such as ``models.digits:Digits``.
        where: What asks for it, for messages.

    Raises:
        SpecError: If the module cannot be imported or has no such attribute.
    """
    module_name, _, attribute = import_string.partition(":")
    module = import_module(module_name, where)
    if not hasattr(module, attribute):
        raise SpecError(
            f"{where}: {module_name} has no {attribute!r}. "
            "Name a class, a function or an object in it."
        )
    return getattr(module, attribute)


def import_module(name: str, where: str) -> types.ModuleType:
    """Imports a module, looking in the working directory first.

    Args:
        name: Its dotted name.
        where: What asks for it, for messages.

    Raises:
        SpecError: If it does not exist or raises.
    """
    _prefer_working_directory(name.partition(".")[0])
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise SpecError(
            f"{where}: importing {name} failed: {type(error).__name__}: {error}. It is looked "
            f"for in the working directory ({Path.cwd()}) and among installed packages."
        ) from error


def _prefer_working_directory(package: str) -> None:
    """Has a package found in the working directory before any other of its name."""
    folder = Path.cwd()
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    here = folder / package
    is_plain_folder = here.is_dir() and not (here / "__init__.py").exists()
    if is_plain_folder and package not in sys.modules:
        # A folder without __init__.py would lose to any installed package of the same name.
        module = types.ModuleType(package)
        module.__path__ = [str(here)]
        sys.modules[package] = module
