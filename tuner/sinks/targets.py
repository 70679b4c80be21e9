"""Targets: which tool curves are sent to, and where, as ``--to`` and ``--log-to`` take them."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tuner.domain.places import absolute
from tuner.errors import SpecError
from tuner.sinks.sink import Sink

_FORMS = {
    "tensorboard": "tensorboard:FOLDER",
    "mlflow": "mlflow:FOLDER or mlflow:URI",
    "wandb": "wandb:PROJECT or wandb:ENTITY/PROJECT",
}
"""How the target of each kind is written; a kind is also the name of its package and its extra."""

_PROJECT = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class Target:
    """A tool, and the place in it, that curves are sent to.

    Attributes:
        kind: The tool.
        place: The folder, the URI or the project; it may hold a password.
    """

    kind: str
    place: str = field(repr=False)

    @property
    def text(self) -> str:
        """The target as it was typed; it may hold a password."""
        return f"{self.kind}:{self.place}"

    def __str__(self) -> str:
        """Returns the target without any password."""
        return f"{self.kind}:{hide_login(self.place)}"


def parse_target(text: str, option: str = "--to") -> Target:
    """Returns the target that a text names; what is needed to reach it is installed.

    >>> str(parse_target("tensorboard:/runs"))
    'tensorboard:/runs'

    Args:
        text: The target, such as ``tensorboard:runs``.
        option: The option that names it, for messages.

    Raises:
        SpecError: If it names no tool or no place, or the tool's package is not installed.
    """
    kind, _, place = text.partition(":")
    forms = "; ".join(_FORMS.values())
    if kind not in _FORMS:
        # It may be an address with a password.
        raise SpecError(f"{option} {hide_login(text)}: begin with a tool: {forms}.")
    if not place.strip():
        raise SpecError(f"{option} {text}: say where to: {_FORMS[kind]}.")
    if kind == "wandb" and not _PROJECT.fullmatch(place):
        raise SpecError(f"{option} {text}: name a project: {_FORMS[kind]}.")
    if place.startswith(("http://", "https://")) and not urlsplit(place).hostname:
        raise SpecError(f"{option} {text}: the URI names no host: {_FORMS[kind]}.")
    if importlib.util.find_spec(kind) is None:
        raise SpecError(
            f"{option} {kind}:…: the package {kind} is not installed: pip install 'tuner[{kind}]'"
        )
    return Target(kind, str(absolute(place, option)) if _is_folder(kind, place) else place)


def hide_login(place: str) -> str:
    """Returns a URI without the password in it; any other text as it is.

    >>> hide_login("https://ann:secret@mlflow.example/a"), hide_login("runs")
    ('https://ann:***@mlflow.example/a', 'runs')
    """
    return re.sub(r"(?<=//)([^/?#@:]*):[^/?#]*@", r"\1:***@", place)


def open_sink(target: Target) -> Sink:
    """Returns the sink of a target; it reaches for nothing yet."""
    return _SINKS[target.kind](target.place)


def _open_tensorboard(place: str) -> Sink:
    from tuner.sinks.tensorboard import TensorBoardSink

    return TensorBoardSink(place)


def _open_mlflow(place: str) -> Sink:
    from tuner.sinks.mlflow import MLflowSink

    return MLflowSink(place)


def _open_wandb(place: str) -> Sink:
    from tuner.sinks.wandb import WandbSink

    return WandbSink(place)


_SINKS: dict[str, Callable[[str], Sink]] = {
    "tensorboard": _open_tensorboard,
    "mlflow": _open_mlflow,
    "wandb": _open_wandb,
}


def _is_folder(kind: str, place: str) -> bool:
    return kind == "tensorboard" or (
        kind == "mlflow" and not urlsplit(place).scheme and place != "databricks"
    )
