"""A constructor call as data, so that what trains and what is exported cannot differ."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any, Literal

Parameters = Literal["all", "hidden", "outer", "matrices", "others", "sparse", "dense"]

OTHERS: dict[Parameters, Parameters] = {
    "hidden": "outer",
    "matrices": "others",
    "sparse": "dense",
}
"""What the rest of a model's parameters is called, by the part an optimizer takes."""


@dataclass(frozen=True)
class Call:
    """One constructor and its keyword arguments.

    Attributes:
        target: Import path of the class, such as ``torch.optim.SGD``.
        arguments: Its keyword arguments, without the parameters to optimize.
        parameters: Which parameters of a model it takes: all; matrices of hidden layers
            (``hidden``) or the rest (``outer``); those with two dimensions (``matrices``) or the
            rest (``others``); those whose gradients are sparse (``sparse``) or the rest
            (``dense``).
        wrapper: A constructor whose first argument is the optimizer, or None.
    """

    target: str
    arguments: dict[str, Any]
    parameters: Parameters = "all"
    wrapper: Call | None = None

    @property
    def targets(self) -> tuple[str, ...]:
        """The import paths of all its classes, the innermost first."""
        return (self.target, *(self.wrapper.targets if self.wrapper else ()))


def rate_key(settings: Container[str]) -> str:
    """Returns what schedules and the multipliers of groups scale: ``lr``, or the factor on one.

    Args:
        settings: A parameter group, or the arguments of an optimizer.

    >>> rate_key({"lr": 0.1}), rate_key({"lr": 0.1, "lr_factor": 1.0})
    ('lr', 'lr_factor')
    """
    # An optimizer that has a factor tunes its lr itself.
    return "lr_factor" if "lr_factor" in settings else "lr"
