"""Imports the user's own code by import strings, looking in the working directory first.

A study comes out of a database, so its code is imported only from packages that this process may
run: those named by ``--allow`` or typed by the user, else those in the working directory.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import sysconfig
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tuner.domain.places import project_folder
from tuner.errors import SpecError, tell_error

ALLOW = "TUNER_ALLOW"
"""The environment variable that carries the allowed packages, with commas between, to workers."""

_TRUSTED = ("optuna.samplers", "optuna.pruners")
"""Modules whose classes do no harm, whoever names them."""

FOR_PACKAGES = ("site-packages", "dist-packages")
"""The names of folders that packages are installed in."""

_INSTALLED = {Path(sysconfig.get_path(key)) for key in ("stdlib", "platstdlib")}


def import_attribute(import_string: str, where: str) -> Any:
    """Returns the attribute that an import string names, looking in the working directory first.

    Args:
        import_string: ``module:attribute``, such as ``models.digits:Digits``.
        where: The option or key that names it, for messages.

    Raises:
        SpecError: If the module may not or cannot be imported, or has no such attribute.
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
        where: The option or key that names it, for messages.

    Raises:
        SpecError: If it is of a package that is not allowed (nothing of it has run then), does
            not exist, or raises.
    """
    package = name.partition(".")[0]
    _check_name(name, where)
    _prefer_working_directory(package)
    _check_allowed(name, where)
    try:
        return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise SpecError(
            f"{where}: importing {name} failed: {tell_error(error)}. It is looked "
            f"for in the working directory ({project_folder()}) and among installed packages."
        ) from error


def allow(packages: Iterable[str]) -> None:
    """Lets this process, and those it starts, import from packages besides those allowed so far.

    From the first one on, the working directory is not enough by itself.

    Args:
        packages: Names such as ``models``, or ``team.models`` for a part of one.

    Raises:
        SpecError: If one is no name of a package.
    """
    names = list(packages)
    for name in names:
        if not _is_dotted(name):
            raise SpecError(
                f"--allow {name!r}: no name of a package. Name one as Python imports it, such as "
                "--allow models; repeat the option for more."
            )
    if names:
        os.environ[ALLOW] = ",".join(dict.fromkeys([*allowed(), *names]))


def vouch_for(import_strings: Iterable[str]) -> None:
    """Allows the packages that a user has typed, in a study file or a command.

    Args:
        import_strings: The texts that were typed; those that are no import strings are skipped.
    """
    modules = [text.partition(":")[0] for text in import_strings if ":" in text]
    packages = [module.partition(".")[0] for module in modules if module not in _TRUSTED]
    allow(package for package in packages if package.isidentifier())


def allowed() -> tuple[str, ...]:
    """Returns the packages allowed by name; none allows those in the working directory."""
    names = (name.strip() for name in os.environ.get(ALLOW, "").split(","))
    return tuple(name for name in names if name)


def _is_dotted(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _check_name(name: str, where: str) -> None:
    if not _is_dotted(name):
        raise SpecError(
            f"{where}: {name!r} is no name of a module. Write it as Python imports it from the "
            "working directory, such as models.digits."
        )


def _prefer_working_directory(package: str) -> None:
    """Makes imports find a package in the working directory before any other of its name."""
    folder = project_folder()
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    here = folder / package
    is_plain_folder = here.is_dir() and not (here / "__init__.py").exists()
    if is_plain_folder and package not in sys.modules:
        # A folder without __init__.py would lose to any installed package of the same name.
        module = types.ModuleType(package)
        module.__path__ = [str(here)]
        sys.modules[package] = module


def _check_allowed(name: str, where: str) -> None:
    package, names = name.partition(".")[0], allowed()
    if name in _TRUSTED:
        return
    if names:
        if any(f"{name}.".startswith(f"{one}.") for one in names):
            return
        rule = f"this one was started for {', '.join(names)}"
    else:
        if _is_missing(package) or _is_of_working_directory(package):
            return
        rule = f"without --allow, those that lie in the working directory ({project_folder()})"
    options = " ".join(f"--allow {one}" for one in (*names, package))
    raise SpecError(
        f"{where}: {name} was not imported: what a database names runs only if it is of the "
        f"packages a process was started for; {rule}. If you trust it, start it with {options}."
    )


def _is_missing(package: str) -> bool:
    """Tells whether nothing would be imported; then the import itself says so."""
    return package not in sys.modules and importlib.util.find_spec(package) is None


def _is_of_working_directory(package: str) -> bool:
    """Tells whether a package is a file or folder of the working directory itself.

    A loaded module counts by the file that it was loaded from. A symbolic link counts by its name:
    who can put one there could put the code there.
    """
    folder = project_folder()
    if folder.name in FOR_PACKAGES or folder in _INSTALLED:
        return False
    homes = {place.parent.resolve() for place in _places(package)}
    return homes == {folder.resolve()}


def _places(package: str) -> list[Path]:
    """Returns the folders of a package or the file of a module, having run nothing of it.

    Modules built into Python have neither.
    """
    loaded = sys.modules.get(package)
    if loaded is not None:
        folders, file = getattr(loaded, "__path__", None), getattr(loaded, "__file__", None)
    else:
        spec = importlib.util.find_spec(package)
        folders = spec and spec.submodule_search_locations
        file = spec and spec.has_location and spec.origin
    if folders:
        return [Path(folder) for folder in folders]
    return [Path(file)] if file else []
