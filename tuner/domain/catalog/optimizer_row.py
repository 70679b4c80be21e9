"""A row of the catalog of optimizers, and the constructor calls its hyperparameters become."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from tuner.domain.catalog.calls import OTHERS, Call, Parameters, package_of
from tuner.domain.catalog.dimensions import Value
from tuner.domain.catalog.hyperparameters import Hyperparameter, Owner

NONE = "none"
"""How a study file spells torch's None."""


@dataclass(frozen=True)
class OptimizerRow:
    """One optimizer: its rule and reference, its class, and its search space.

    Attributes:
        name: Its name in study files.
        target: Import path of its class.
        summary: One sentence on when to use it.
        equation: Its update rule, g being the gradient.
        reference: Where it was published.
        hyperparameters: Its hyperparameters, those of its helper and wrapper included.
        arguments: Arguments of the class that are the same in every trial.
        takes: The parameters it can train; where a hyperparameter chooses them, the widest choice.
        helper: Import path of the optimizer for the parameters it cannot train, or None.
        wrapper: Import path of the optimizer around it, or None.
        closure: Whether a step computes the loss several times, through a closure.
        groups: Whether it trains parameter groups.
        grows: Whether parameters may join it in mid-run.
        rate: The argument that schedules and the multipliers of groups scale.
        length_argument: The argument that takes the steps of a full trial, if there is one.
        averages: Whether it averages its iterates by itself.
        switches: Whether it trains other weights than it evaluates, by ``train()`` and ``eval()``.
        generalises: The listed optimizers of which it is a generalisation: somewhere in its usual
            ranges it trains as each of them, or nearly so. Tuned well enough, it is no worse.
        slow_start: Returns, from its hyperparameters, the steps in which it learns how fast it may
            go, and in which no trial is pruned.
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
    generalises: tuple[str, ...] = ()
    slow_start: Callable[[dict[str, Value]], int] = field(default=lambda values: 0, compare=False)

    @property
    def package(self) -> str:
        """The package that must be installed for it, such as ``torch``."""
        return package_of(self.target)

    @property
    def torch_class(self) -> str | None:
        """The name in ``torch.optim`` of the one class that it is; None if it is none, or more."""
        module, _, name = self.target.rpartition(".")
        alone = self.helper is None and self.wrapper is None
        return name if alone and module == "torch.optim" else None

    @property
    def has_momentum(self) -> bool:
        """Whether it has a momentum, or first beta, that a schedule may cycle or warm up."""
        own = any(one.is_momentum for one in self.hyperparameters)
        # The momentum of one that switches weights is the share of its averages in them.
        return own and not self.switches

    def decode(self, point: dict[str, Value]) -> dict[str, Value]:
        """Returns every hyperparameter in torch's form, defaults filled in."""
        return {one.name: one.decode(point) for one in self.hyperparameters}

    def calls(self, values: dict[str, Value], steps: int | None = None) -> tuple[Call, ...]:
        """Returns the constructors that make up this optimizer.

        Args:
            values: Hyperparameters in torch's form, as :meth:`decode` gives them.
            steps: Steps of a full trial, for an optimizer that must know them.

        >>> from tuner.domain.catalog.optimizers import OPTIMIZERS
        >>> OPTIMIZERS["adam"].calls(OPTIMIZERS["adam"].decode({"lr": 0.01}))[0].arguments
        {'lr': 0.01, 'eps': 1e-08, 'weight_decay': 0.0, 'betas': (0.9, 0.999)}
        """
        known = {one.name: one for one in self.hyperparameters}
        owned: dict[Owner, list[tuple[Hyperparameter, Value]]] = {}
        for name, value in values.items():
            owned.setdefault(known[name].owner, []).append((known[name], value))
        arguments = _to_arguments(owned.get("call", ())) | self.arguments
        if self.length_argument is not None:
            arguments[self.length_argument] = steps
        takes = self.takes
        for _, value in owned.get("parameters", ()):
            takes = "hidden" if value == "hidden" else self.takes
        around = _to_arguments(owned.get("wrapper", ()))
        wrapper = Call(self.wrapper, around) if self.wrapper else None
        call = Call(self.target, arguments, takes, wrapper, self.rate)
        if self.helper is None:
            return (call,)
        helping = _to_arguments(owned.get("helper", ()))
        return call, Call(self.helper, helping, OTHERS[takes], wrapper)


def _to_arguments(values: Iterable[tuple[Hyperparameter, Value]]) -> dict[str, Any]:
    """Returns a constructor's arguments; those that are tuples come last, item by item."""
    plain: dict[str, Any] = {}
    tuples: dict[str, list[tuple[int, Value]]] = {}
    for hyperparameter, value in values:
        argument = hyperparameter.argument or hyperparameter.name
        if hyperparameter.place is None:
            plain[argument] = None if value == NONE else value
        else:
            tuples.setdefault(argument, []).append((hyperparameter.place, value))
    return plain | {name: tuple(v for _, v in sorted(items)) for name, items in tuples.items()}
