"""The reference of Python: the public names, of which mkdocstrings writes the pages."""

from __future__ import annotations

import importlib
import inspect

ROOMS = {
    "tuner": "What scripts and notebooks use. `import tuner` loads no torch until it is needed.",
    "tuner.optim": "Optimizers and schedules as the catalog names them, over any model.",
    "tuner.integrations.lightning": "Lightning's trainer, attached to a trial.",
    "tuner.integrations.transformers": "The Trainer of Transformers, attached to a trial.",
    "tuner.search": "What proposes trials and what stops them, over Optuna, in memory.",
}
"""The packages and modules whose public names are promised, and what each is for.

``tests/public_api.txt`` holds their signatures: a change of one is a change for users.
"""


def public_names(room: str) -> list[str]:
    """Returns the names that a package or module promises, classes and functions first."""
    names = [name for name in importlib.import_module(room).__all__ if not name.startswith("_")]
    return sorted(names, key=lambda name: (not _is_documented(room, name), name))


def write_python_api() -> str:
    """Returns the page: a line for mkdocstrings for each public name."""
    lines = [
        "# Python",
        "",
        "From the docstrings. A change of a name or a signature on this page is in the "
        "[changes](../changes.md).",
        "",
    ]
    for room, purpose in ROOMS.items():
        lines += [f"## {room}", "", purpose, ""]
        for name in public_names(room):
            lines += [f"::: {room}.{name}", "    options:", "      heading_level: 3", ""]
    return "\n".join(lines)


def _is_documented(room: str, name: str) -> bool:
    value = getattr(importlib.import_module(room), name)
    return inspect.isclass(value) or inspect.isfunction(value)
