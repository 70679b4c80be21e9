"""What the catalog knows of an optimizer, and how its hyperparameters become constructor calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tuner.domain.catalog.calls import OTHERS, Call, Parameters
from tuner.domain.catalog.dimensions import Value
from tuner.domain.catalog.hyperparameters import Hyperparameter

NONE = "none"
"""How a study file spells torch's None."""


@dataclass(frozen=True)
class OptimizerRow:
    """One optimizer: what it is, what its class is called, and how it is searched.

    Attributes:
        name: Its name in study files.
        target: Import path of its class.
        summary: One sentence on when to use it.
        equation: Its update rule, g being the gradient.
        reference: Where it was published.
        hyperparameters: Its knobs.
        arguments: Arguments of the class that are the same in every trial.
        takes: Which parameters it can train; of ``matrices``, the hyperparameter of this name
            chooses between all and those of hidden layers.
        helper: Import path of the optimizer for the parameters it cannot train; its arguments
            are the hyperparameters prefixed with its lower-case class name.
        wrapper: Import path of the optimizer around it, whose arguments are prefixed likewise.
        closure: Whether a step computes the loss several times, through a closure.
        groups: Whether it trains parameter groups.
        grows: Whether parameters may join it in mid-run.
        rate: The argument that schedules and the multipliers of groups scale.
        length_argument: The argument that takes the steps of a full trial, if there is one.
        averages: Whether it averages its iterates by itself.
        switches: Whether it trains other weights than it evaluates, by ``train()`` and ``eval()``.
        slow_start: The steps, from its hyperparameters, in which it learns how fast it may go and
            nobody is judged.
    """

    name: str
    target: str
    summary: str
    equation: str
    reference: str
    hyperparameters: tuple[Hyperparameter, ...]
    arguments: dict[str, Any] = field(default_factory=dict)
    takes: Parameters = "all"
    helper: str | None = None
    wrapper: str | None = None
    closure: bool = False
    groups: bool = True
    grows: bool = True
    rate: str = "lr"
    length_argument: str | None = None
    averages: bool = False
    switches: bool = False
    slow_start: Callable[[dict[str, Value]], int] = field(default=lambda values: 0, compare=False)

    def decode(self, point: dict[str, Value]) -> dict[str, Value]:
        """Returns every hyperparameter in torch's form, defaults filled in."""
        return {knob.name: knob.decode(point) for knob in self.hyperparameters}

    def calls(self, values: dict[str, Value], steps: int | None = None) -> tuple[Call, ...]:
        """Returns the constructors that make up this optimizer.

        Args:
            values: Hyperparameters in torch's form, as :meth:`decode` gives them.
            steps: Steps of a full trial, for an optimizer that must know them.

        >>> from tuner.domain.catalog.optimizers import OPTIMIZERS
        >>> OPTIMIZERS["adam"].calls(OPTIMIZERS["adam"].decode({"lr": 0.01}))[0].arguments
        {'lr': 0.01, 'eps': 1e-08, 'weight_decay': 0.0, 'betas': (0.9, 0.999)}
        """
        own, around = _split(values, self.wrapper)
        own, helping = _split(own, self.helper)
        takes = self.takes
        if (chosen := own.pop("matrices", None)) is not None:
            takes = "hidden" if chosen == "hidden" else "matrices"
        wrapper = Call(self.wrapper, _to_arguments(around)) if self.wrapper else None
        arguments = _to_arguments(own) | self.arguments
        if self.length_argument is not None:
            arguments[self.length_argument] = steps
        call = Call(self.target, arguments, takes, wrapper)
        if self.helper is None:
            return (call,)
        return call, Call(self.helper, _to_arguments(helping), OTHERS[takes], wrapper)


# Arguments that torch takes as one tuple are searched one by one.
_TUPLES = {"betas": ("beta1", "beta2", "beta3"), "etas": ("etaminus", "etaplus")}


def _split(
    values: dict[str, Value], target: str | None
) -> tuple[dict[str, Value], dict[str, Value]]:
    """Returns an optimizer's own hyperparameters, and those of the class beside or around it."""
    if target is None:
        return dict(values), {}
    prefix = target.rpartition(".")[2].lower() + "_"
    own = {k: v for k, v in values.items() if not k.startswith(prefix)}
    others = {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
    return own, others


def _to_arguments(values: dict[str, Value]) -> dict[str, Any]:
    parts = {part for members in _TUPLES.values() for part in members}
    arguments: dict[str, Any] = {
        k: None if v == NONE else v for k, v in values.items() if k not in parts
    }
    for name, members in _TUPLES.items():
        if members[0] in values:
            arguments[name] = tuple(values[member] for member in members if member in values)
    return arguments
