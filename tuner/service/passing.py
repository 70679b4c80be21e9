"""Workloads as objects: taken from a program, and passed on to processes that it starts.

An object that another process can import by its name is named so, as in a study file. Any other one
stays in this process, or is pickled into the pipe of a process that this one has started and that
waits for orders. Nothing pickled is ever stored, or read from anywhere else than that pipe.
"""

from __future__ import annotations

import base64
import functools
import importlib
import importlib.util
import inspect
import os
import pickle
import re
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.domain.imports import FOR_PACKAGES
from tuner.domain.names import IMPORT_STRING
from tuner.domain.passed import Passed
from tuner.domain.places import project_folder
from tuner.errors import SpecError, tell_error

_IN_CHILD = "__mp_main__"
"""The name under which the main module of a program is loaded in a process that it started."""

_receiving = False
"""Whether this process is loading what another one has passed to it."""


@dataclass(frozen=True)
class Workload:
    """A workload as a program gives it.

    Attributes:
        name: Its import string, or for an object the name that people read.
        target: The object, if no other process can import it; else None.
        passed: The place of that object, which its study keeps.
    """

    name: str
    target: Any = None
    passed: Passed | None = None


def take_workload(workload: Any) -> Workload:
    """Returns a workload that was given by its import string or as an object.

    Args:
        workload: The import string, a training loop, a workload class, or an object of one.

    Raises:
        SpecError: If it is none of these.
    """
    if isinstance(workload, str):
        return Workload(workload)
    if not (callable(workload) or hasattr(workload, "loss")):
        raise SpecError(
            f"workload = {workload!r}: give a training loop (a function of a tuner.Run), a class "
            "with the methods of tuner.Workload, an object of one, or an import string such as "
            "models.digits:Digits."
        )
    named = _find_named(workload)
    module, qualname = named.__module__, named.__qualname__
    name = f"{module}:{qualname}"
    if named is workload and re.fullmatch(IMPORT_STRING, name) and _is_importable(module, workload):
        return Workload(name)
    kind = "class" if inspect.isclass(workload) else "function"
    if named is not workload and not inspect.isroutine(named):
        kind = "object of the class"
    try:
        file = inspect.getsourcefile(named)
    except (TypeError, OSError):  # of a class of a notebook's
        file = None
    there = file is not None and Path(file).is_file()
    passed = Passed(module=module, qualname=qualname, kind=kind, file=str(file) if there else None)
    short = qualname.rpartition(".")[2]
    return Workload(f"{module}:{short if short.isidentifier() else 'train'}", workload, passed)


def _find_named(workload: Any) -> Any:
    """Returns what an object has its name from: itself, the function of a partial, or its class."""
    while isinstance(workload, functools.partial):
        workload = workload.func
    if inspect.isroutine(workload) or inspect.isclass(workload):
        return getattr(workload, "__func__", workload)
    return type(workload)


def _is_importable(module: str, workload: Any) -> bool:
    """Tells whether a worker finds this very object by the names of its module and its own."""
    loaded = sys.modules.get(module)
    if module == "__main__" or getattr(loaded, workload.__qualname__, None) is not workload:
        return False
    file = getattr(loaded, "__file__", None)
    if file is None:
        return False
    # Where other processes look, too: not in folders that the program has added for itself.
    given = [Path(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    packages = [Path(path) for path in sys.path if Path(path).name in FOR_PACKAGES]
    homes = [project_folder(), *given, *packages]
    parts = module.split(".")
    return any(
        Path(file).resolve() in {(home / place).resolve() for place in _places(parts)}
        for home in homes
    )


def _places(parts: list[str]) -> tuple[Path, Path]:
    path = Path(*parts)
    return path.with_name(f"{path.name}.py"), path / "__init__.py"


def pack(target: Any) -> str:
    """Returns an object as text, for the pipe of a process that this one has started.

    Raises:
        SpecError: If it cannot be pickled.
    """
    refuse_loading()
    by_value = importlib.util.find_spec("cloudpickle") is not None
    try:
        if by_value:
            data: bytes = importlib.import_module("cloudpickle").dumps(target)
        else:
            data = pickle.dumps(target)
    except Exception as error:  # objects have pickling of their own
        advice = "" if by_value else " or install cloudpickle (pip install cloudpickle),"
        raise SpecError(
            f"The workload cannot be passed to other processes: {tell_error(error)}. Put it into a "
            f"module of the working directory,{advice} or train with one worker, in this process."
        ) from error
    main = None if by_value else getattr(sys.modules["__main__"], "__file__", None)
    paths = [str(Path(path).absolute()) for path in sys.path]
    parcel = pickle.dumps((paths, main, data))
    return base64.b64encode(parcel).decode()


def unpack(text: str) -> Any:
    """Returns the object that the process that started this one has packed.

    Raises:
        SpecError: If it cannot be loaded here.
    """
    global _receiving  # noqa: PLW0603 - it is the process's
    _receiving = True
    try:
        paths, main, data = pickle.loads(base64.b64decode(text))  # noqa: S301 (our own pipe)
        sys.path += [path for path in paths if path not in sys.path]
        if main is not None:
            names = runpy.run_path(main, run_name=_IN_CHILD)
            vars(sys.modules["__main__"]).update(names)
        return pickle.loads(data)  # noqa: S301 (likewise)
    except SpecError:
        raise
    except Exception as error:
        raise SpecError(
            f"The workload cannot be loaded in another process: {tell_error(error)}. Put it into a "
            "module of the working directory, or train with one worker, in this process."
        ) from error
    finally:
        _receiving = False


def refuse_loading() -> None:
    """Refuses to tune in a process that is only loading the program of another one.

    Raises:
        SpecError: If this is one.
    """
    if _receiving:
        raise SpecError(
            "The program tunes where it is loaded, so that every worker would begin to tune as "
            'well: put the call below if __name__ == "__main__":'
        )
