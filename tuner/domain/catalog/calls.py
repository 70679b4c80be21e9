"""Constructor calls as data, from which both training and the exported code are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Parameters = Literal["all", "hidden", "outer", "matrices", "others", "sparse", "dense"]

OTHERS: dict[Parameters, Parameters] = {
    "hidden": "outer",
    "matrices": "others",
    "sparse": "dense",
}
"""The name of the rest of a model's parameters, by the part that an optimizer takes."""


@dataclass(frozen=True)
class Call:
    """One constructor and its keyword arguments.

    Attributes:
        target: Import path of the class or function, such as ``torch.optim.SGD``.
        arguments: Its keyword arguments, without the parameters to optimize.
        parameters: Which parameters of a model it takes: all; matrices of hidden layers
            (``hidden``) or the rest (``outer``); those with two dimensions (``matrices``) or the
            rest (``others``); those whose gradients are sparse (``sparse``) or the rest
            (``dense``).
        wrapper: A constructor whose first argument is the optimizer, or None.
        rate: The argument that schedules and the multipliers of groups scale.
    """

    target: str
    arguments: dict[str, Any]
    parameters: Parameters = "all"
    wrapper: Call | None = None
    rate: str = "lr"

    @property
    def targets(self) -> tuple[str, ...]:
        """The import paths of all its classes, the innermost first."""
        return (self.target, *(self.wrapper.targets if self.wrapper else ()))

    @property
    def package(self) -> str:
        """The package that must be installed for it, such as ``torch``."""
        return package_of(self.target)

    @property
    def class_name(self) -> str:
        """The name of its class, such as ``SGD``."""
        return split_target(self.target)[1]


def split_target(target: str) -> tuple[str, str]:
    """Returns the module and the name in it of an import path.

    >>> split_target("torch.optim.SGD")
    ('torch.optim', 'SGD')
    """
    module, _, name = target.rpartition(".")
    return module, name


def package_of(target: str) -> str:
    """Returns the package that an import path begins with.

    >>> package_of("torch.optim.SGD")
    'torch'
    """
    return target.partition(".")[0]
