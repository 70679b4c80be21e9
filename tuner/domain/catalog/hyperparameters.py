"""One hyperparameter: its name in torch, its default, and how it is searched."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from tuner.domain.catalog.dimensions import Choice, Dimension, Fixed, Float, Int, Value
from tuner.domain.regimes import FINETUNE, Regime

KEPT = 0
"""The breadth at which every hyperparameter keeps its default."""

LR, MAIN, FINE = 1, 2, 3
"""Breadths of a search: the learning rate alone, the usual few, or all hyperparameters."""

ASKED = 4
"""The breadth of a hyperparameter that is searched only where a study file asks for it."""

Owner = Literal["call", "helper", "wrapper", "parameters", "loop"]
"""The receivers of a hyperparameter; see :attr:`Hyperparameter.owner`."""

_COMPLEMENT = "one_minus_"
_SWITCH = "use_"


@dataclass(frozen=True)
class LogNormalPrior:
    """Belief that log10 of a value is normally distributed.

    Attributes:
        mean: Mean of log10(value).
        std: Standard deviation of log10(value), above 0.
    """

    mean: float
    std: float

    def describe(self) -> str:
        """Returns the prior as text, such as ``10^N(-2.7, 1.42)``."""
        return f"10^N({self.mean:g}, {self.std:g})"


@dataclass(frozen=True)
class Bounds:
    """The values that a hyperparameter may have at all, whatever range is searched.

    Attributes:
        low: Smallest value.
        high: Largest value.
        open_low: Whether ``low`` itself is left out.
        open_high: Whether ``high`` itself is left out.
    """

    low: float
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below

    def describe(self) -> str:
        """Returns the rule as text, such as ``above 0 and at most 1``."""
        rule = f"{'above' if self.open_low else 'at least'} {self.low:g}"
        if math.isinf(self.high):
            return rule
        return f"{rule} and {'below' if self.open_high else 'at most'} {self.high:g}"


ANYTHING = Bounds(-math.inf)
POSITIVE = Bounds(0, open_low=True)
NOT_NEGATIVE = Bounds(0)
BELOW_ONE = Bounds(0, 1, open_high=True)
BETWEEN = Bounds(0, 1, open_low=True, open_high=True)
FRACTION = Bounds(0, 1)
COUNT = Bounds(1)
POSITIVE_FRACTION = Bounds(0, 1, open_low=True)


@dataclass(frozen=True)
class Finetuning:
    """How a hyperparameter is searched where a model arrives with trained weights.

    Attributes:
        dimension: The axis it is searched on, as that of a :class:`Hyperparameter`.
        source: The publication that the range comes from, abbreviated, or J for our judgement.
        prior: A belief about good values, for samplers that use one.
        breadth: The smallest breadth of search that includes it; None for the usual one.
    """

    dimension: Dimension
    source: str
    prior: LogNormalPrior | None = None
    breadth: int | None = None


@dataclass(frozen=True)
class Hyperparameter:
    """One hyperparameter of an optimizer, a schedule or an average.

    Attributes:
        name: Its name in study files: torch's, with ``betas`` as ``beta1`` and ``beta2``.
        default: The value that torch gives it by default.
        dimension: The axis it is searched on, in the form that is searched (see ``complement``).
        source: The publication that the range comes from, abbreviated, or J for our judgement.
        breadth: The smallest breadth of search that includes it.
        complement: Whether ``1 - value`` is searched instead of the value.
        switch: Whether "off", a value of zero, is a choice of its own.
        prior: A belief about good values, for samplers that use one.
        bounds: The values that it may have.
        argument: The constructor's argument that takes it; None for the argument of its name.
        place: Its index in that argument, where the argument is a tuple; None where it is not.
        owner: Its receiver: the row's own constructor ``call``, that of the ``helper`` beside an
            optimizer or of the ``wrapper`` around it; or no constructor: it chooses the
            ``parameters`` that an optimizer takes, or the training ``loop`` goes by it.
        is_momentum: Whether it is the momentum, which schedules cycle and a warmup raises: the
            argument of that name, or Adam's first beta.
        finetuning: How it is searched in that regime; None for as from scratch.
    """

    name: str
    default: Value
    dimension: Dimension
    source: str
    breadth: int = FINE
    complement: bool = False
    switch: bool = False
    prior: LogNormalPrior | None = None
    bounds: Bounds = ANYTHING
    argument: str | None = None
    place: int | None = None
    owner: Owner = "call"
    is_momentum: bool = False
    finetuning: Finetuning | None = None

    def searched_in(self, regime: Regime | None) -> Hyperparameter:
        """Returns it with the range, source and prior that it has in a regime."""
        own = self.finetuning
        if own is None or regime != FINETUNE:
            return self
        breadth = self.breadth if own.breadth is None else own.breadth
        return replace(
            self, dimension=own.dimension, source=own.source, prior=own.prior, breadth=breadth
        )

    @property
    def search_name(self) -> str:
        """The name under which the value is searched."""
        return f"{_COMPLEMENT}{self.name}" if self.complement else self.name

    @property
    def switch_name(self) -> str:
        """The name of the choice that turns it on, for a hyperparameter with a switch."""
        return f"{_SWITCH}{self.name}"

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys under which a study file may set its value."""
        return (self.name, self.search_name) if self.complement else (self.name,)

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The names that an argument of a command may have for it, such as ``betas.0``."""
        if self.place is None:
            return (self.name,)
        return (self.name, str(self.argument), f"{self.argument}.{self.place}")

    @property
    def axis_names(self) -> tuple[str, ...]:
        """The names that an axis of it may have: its switch, which is drawn first, and its keys."""
        return (self.switch_name, *self.keys)

    def axes(self, breadth: int) -> dict[str, Dimension]:
        """Returns the axes it adds to a search of this breadth, by the name searched."""
        if breadth < self.breadth:
            return {self.name: Fixed(value=self.default)}
        if self.switch:
            return {
                self.switch_name: Choice(choices=(False, True)),
                self.search_name: self.dimension,
            }
        return {self.search_name: self.dimension}

    def decode(self, point: dict[str, Value]) -> Value:
        """Returns the value in torch's form.

        Args:
            point: Searched values by name; a missing one means the default.
        """
        if point.get(self.switch_name) is False:
            return 0.0
        if self.complement and self.search_name in point:
            return 1.0 - float(point[self.search_name])
        return point.get(self.name, self.default)

    def encode(self, key: str, value: Value) -> Value:
        """Returns a value in torch's form as one of :attr:`keys` has it searched."""
        if self.complement and key == self.search_name:
            return 1.0 - float(value)
        return value

    def fit(self, key: str, axis: Dimension) -> Dimension:
        """Returns an axis set by a user, with whole numbers read as real ones where they are.

        Args:
            key: The name the user gave it, one of :attr:`keys`.
            axis: The axis.

        Raises:
            ValueError: If a value has another type than the default or is out of bounds.
        """
        for value in _members(axis):
            _check_type(value, self.default)
            if isinstance(value, str) and value not in _members(self.dimension):
                known = ", ".join(repr(member) for member in _members(self.dimension))
                raise ValueError(f"{value!r} is none of {known}")
            if not isinstance(value, bool | str):
                self._check_bounds(key, value)
        return _with_real_numbers(axis) if isinstance(self.default, float) else axis

    def _check_bounds(self, key: str, value: float) -> None:
        complement = self.complement and key == self.search_name
        if (1 - value if complement else value) not in self.bounds:
            meaning = f", which is 1 - {self.name}," if complement else ""
            raise ValueError(
                f"{value:g}{meaning} is out of bounds: {self.name} is {self.bounds.describe()}"
            )


def name_in_torch(param: str) -> str:
    """Returns the name of a searched parameter as people know it, whatever form is searched.

    >>> name_in_torch("muon.one_minus_momentum"), name_in_torch("adam.lr")
    ('muon.momentum', 'adam.lr')
    """
    row, dot, key = param.rpartition(".")
    return f"{row}.{key.removeprefix(_COMPLEMENT)}" if dot else param


def _members(dimension: Dimension) -> tuple[Value, ...]:
    match dimension:
        case Fixed():
            return (dimension.value,)
        case Choice():
            return dimension.choices
        case Float() | Int():
            return (dimension.low, dimension.high)


def _check_type(value: Value, default: Value) -> None:
    expects_switch, expects_text = isinstance(default, bool), isinstance(default, str)
    kind = (
        "true or false"
        if expects_switch
        else "text"
        if expects_text
        else "a whole number"
        if isinstance(default, int)
        else "a number"
    )
    fits = isinstance(value, bool) == expects_switch and isinstance(value, str) == expects_text
    if not fits or (kind == "a whole number" and isinstance(value, float)):
        raise ValueError(f"{value!r} is not {kind}, as in the default {default!r}")


def fit_switch(axis: Dimension) -> Dimension:
    """Returns an axis set by a user for a switch.

    Raises:
        ValueError: If it is anything but true, false or a choice of both.
    """
    if not all(isinstance(value, bool) for value in _members(axis)):
        raise ValueError(
            "a switch is true or false, or { choices = [false, true] } where it is searched"
        )
    return axis


def _with_real_numbers(axis: Dimension) -> Dimension:
    match axis:
        case Fixed():
            return Fixed(value=_real(axis.value))
        case Choice():
            return Choice(choices=tuple(map(_real, axis.choices)))
        case Int():
            return Float(low=_real(axis.low), high=_real(axis.high), log=axis.log)
        case Float():
            return axis


def _real(value: Value) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ValueError("a number is too large") from None


# Hyperparameters that many optimizers have, each with its own default, range and source.


def log_range(low: float, high: float) -> Float:
    """Returns an axis that is searched by the logarithm of its values."""
    return Float(low=low, high=high, log=True)


def rate(
    default: float,
    low: float,
    high: float,
    source: str = "J",
    prior: LogNormalPrior | None = None,
    *,
    finetuning: Finetuning | None = None,
) -> Hyperparameter:
    """Returns a learning rate, which every search includes."""
    axis = log_range(low, high)
    return Hyperparameter(
        "lr", default, axis, source, LR, bounds=POSITIVE, prior=prior, finetuning=finetuning
    )


def below_one(
    name: str,
    default: float,
    low: float,
    high: float,
    source: str,
    breadth: int,
    *,
    bounds: Bounds = BELOW_ONE,
) -> Hyperparameter:
    """Returns a number near 1 whose distance from 1 is searched, such as a decay rate.

    Args:
        name: Its name.
        default: Its default, in [0, 1).
        low: Its smallest distance from 1.
        high: Its largest distance from 1.
        source: The publication that the range comes from, abbreviated.
        breadth: The smallest breadth of search that includes it.
        bounds: The values that it may have.
    """
    axis = log_range(low, high)
    return Hyperparameter(name, default, axis, source, breadth, bounds=bounds, complement=True)


def momentum(
    default: float, low: float, high: float, source: str = "J", *, bounds: Bounds = BETWEEN
) -> Hyperparameter:
    """Returns a momentum, searched by its distance from 1; see :func:`below_one`."""
    found = below_one("momentum", default, low, high, source, MAIN, bounds=bounds)
    return replace(found, is_momentum=True)


def beta(
    number: int,
    default: float,
    low: float,
    high: float,
    breadth: int = FINE,
    *,
    source: str = "J",
    bounds: Bounds = BETWEEN,
) -> Hyperparameter:
    """Returns one of Adam's betas, searched by its distance from 1; see :func:`below_one`.

    Args:
        number: Its number, from 1; the first is the momentum.
        default: Its default, in [0, 1).
        low: Its smallest distance from 1.
        high: Its largest distance from 1.
        breadth: The smallest breadth of search that includes it.
        source: The publication that the range comes from, abbreviated.
        bounds: The values that it may have.
    """
    found = below_one(f"beta{number}", default, low, high, source, breadth, bounds=bounds)
    return as_beta(found, number)


def as_beta(hyperparameter: Hyperparameter, number: int) -> Hyperparameter:
    """Returns a hyperparameter as an item of the argument ``betas``, counted from 1."""
    return replace(hyperparameter, argument="betas", place=number - 1, is_momentum=number == 1)


def weight_decay(
    default: float, low: float, high: float, source: str = "J", breadth: int = FINE
) -> Hyperparameter:
    """Returns a weight decay; one of 0 by default has a switch that turns it on."""
    return Hyperparameter(
        "weight_decay",
        default,
        log_range(low, high),
        source,
        breadth,
        bounds=NOT_NEGATIVE,
        switch=default == 0,
    )
