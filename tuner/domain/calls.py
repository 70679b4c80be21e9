"""A constructor call as data, so that what trains and what is exported cannot differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Parameters = Literal["all", "matrices", "others", "sparse", "dense"]

OTHERS: dict[str, Parameters] = {"matrices": "others", "sparse": "dense"}
"""What the rest of a model's parameters is called, by the part an optimizer takes."""


@dataclass(frozen=True)
class Call:
    """One constructor and its keyword arguments.

    Attributes:
        target: Import path of the class, such as ``torch.optim.SGD``.
        arguments: Its keyword arguments, without the parameters to optimize.
        parameters: Which parameters of a model it takes: all; those with two dimensions
            (``matrices``) or the rest (``others``); those whose gradients are sparse
            (``sparse``) or the rest (``dense``).
    """

    target: str
    arguments: dict[str, Any]
    parameters: Parameters = "all"
