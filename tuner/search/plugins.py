"""Samplers and pruners of the user's own, by import string."""

from __future__ import annotations

from typing import Any

from tuner.domain.imports import import_attribute
from tuner.errors import SpecError


def build_plugin(import_string: str, kind: type[Any], key: str, **arguments: Any) -> Any:
    """Returns the sampler or pruner that a callable of the user's makes.

    Args:
        import_string: The import string of the callable.
        kind: The class that it has to return an instance of.
        key: The key of the study file that names it.
        **arguments: The arguments that it is called with.

    Raises:
        SpecError: If it cannot be imported or called, or returns something else.
    """
    where = f"{key} = {import_string!r}"
    build = import_attribute(import_string, where)
    given = ", ".join(f"{name}={value}" for name, value in arguments.items())
    call = f"{import_string.partition(':')[2]}({given})"
    try:
        built = build(**arguments)
    except (Exception, SystemExit) as error:
        raise SpecError(
            f"{where}: the call {call} failed: {type(error).__name__}: {error}. "
            f"Name a callable that takes {' and '.join(arguments) or 'no arguments'} "
            f"and returns an Optuna {kind.__name__}."
        ) from error
    if not isinstance(built, kind):
        raise SpecError(
            f"{where}: {call} returned {built!r}, which is no Optuna {kind.__name__}. "
            "Return an instance of a subclass of it."
        )
    return built
