"""The axes of a search space: a range, a list of choices, or a fixed value."""

from __future__ import annotations

import math
from typing import Annotated, Any, TypeGuard

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

Value = bool | int | float | str
"""The types of a hyperparameter's value: a switch, a count, a real number or a name."""


def _check_finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


Finite = Annotated[float, AfterValidator(_check_finite)]


class Frozen(BaseModel):
    """A validated object that cannot change and refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Float(Frozen):
    """A real-valued range.

    Attributes:
        low: Smallest value, included.
        high: Largest value, included.
        log: Whether to search the logarithm of the value.
    """

    low: Finite
    high: Finite
    log: bool = False

    @model_validator(mode="after")
    def _check_order(self) -> Float:
        _check_range(self.low, self.high, self.log)
        return self

    def describe(self) -> str:
        """Returns the range as a person writes it, such as ``log[0.001, 0.1]``."""
        return f"{'log' if self.log else ''}[{self.low:g}, {self.high:g}]"


class Int(Frozen):
    """A range of whole numbers.

    Attributes:
        low: Smallest value, included.
        high: Largest value, included.
        log: Whether to search the logarithm of the value.
    """

    low: int
    high: int
    log: bool = False

    @model_validator(mode="after")
    def _check_order(self) -> Int:
        _check_range(self.low, self.high, self.log)
        return self

    def describe(self) -> str:
        """Returns the range as a person writes it, such as ``int[1, 20]``."""
        return f"int{' log' if self.log else ''}[{self.low}, {self.high}]"


def _allow_none(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    return value if value is None else validate(value)


Option = Annotated[Value, WrapValidator(_allow_none)]
"""One of the choices. A study file cannot write None, but a training loop may offer it."""


class Choice(Frozen):
    """One of several values without an order.

    Attributes:
        choices: The values, at least one, all different.
    """

    choices: tuple[Option, ...] = Field(min_length=1, strict=False)

    @model_validator(mode="after")
    def _check_distinct(self) -> Choice:
        if len({(type(choice), choice) for choice in self.choices}) < len(self.choices):
            raise ValueError(f"choices {list(self.choices)} must all be different")
        for choice in self.choices:
            if isinstance(choice, float):
                _check_finite(choice)
        return self

    def describe(self) -> str:
        """Returns the choices as a person writes them, such as ``{0, 0.05}``."""
        return "{" + ", ".join(format_value(choice) for choice in self.choices) + "}"


class Fixed(Frozen):
    """A value that is not searched.

    Attributes:
        value: The value every trial uses.
    """

    value: Value

    def describe(self) -> str:
        """Returns the value as text."""
        return format_value(self.value)


Dimension = Float | Int | Choice | Fixed


def parse_dimension(raw: Any) -> Dimension:
    """Reads an axis as a study file writes it.

    Args:
        raw: A plain value (fixed), ``{choices = [...]}`` or ``{low = ..., high = ..., log = ...}``;
            a range between two whole numbers holds whole numbers.

    Returns:
        The axis.

    Raises:
        ValueError: If ``raw`` has none of these forms or breaks a rule of its form.

    >>> parse_dimension({"low": 1e-4, "high": 0.1, "log": True}).describe()
    'log[0.0001, 0.1]'
    """
    if isinstance(raw, Float | Int | Choice | Fixed):
        return raw
    if isinstance(raw, bool | int | float | str):
        if isinstance(raw, float):
            _check_finite(raw)
        return Fixed(value=raw)
    if isinstance(raw, dict) and "choices" in raw:
        return Choice.model_validate(raw)
    if isinstance(raw, dict) and {"low", "high"} & raw.keys():
        whole = type(raw.get("low")) is int and type(raw.get("high")) is int
        return Int.model_validate(raw) if whole else Float.model_validate(raw)
    raise ValueError(
        "must be a value, { choices = [...] } or { low = ..., high = ..., log = true|false }"
    )


def dump_dimension(dimension: Dimension) -> Any:
    """Returns the axis as a study file writes it; the inverse of :func:`parse_dimension`."""
    if isinstance(dimension, Fixed):
        return dimension.value
    dumped = dimension.model_dump(mode="json")
    return dumped if dumped.get("log", True) else {k: v for k, v in dumped.items() if k != "log"}


def _parse_axis(raw: Any) -> Any:
    return parse_dimension(raw)


Axis = Annotated[
    Dimension, BeforeValidator(_parse_axis), PlainSerializer(dump_dimension, when_used="always")
]
"""An axis as a field of a study file."""


def nearest(axis: Dimension, value: Value) -> Value:
    """Returns the value of an axis that comes nearest to one; of names and switches, the first.

    >>> nearest(Float(low=0.1, high=0.5), 0.01), nearest(Choice(choices=(8, 64)), 16)
    (0.1, 8)
    """
    match axis:
        case Fixed():
            return axis.value
        case Float() | Int():
            number = float(value)
            if number < axis.low:
                return axis.low
            return axis.high if number > axis.high else value
        case Choice():
            if value in axis.choices or not all(map(_is_number, (value, *axis.choices))):
                return value if value in axis.choices else axis.choices[0]
            numbers = [float(choice) for choice in axis.choices]
            by_ratio = min(float(value), *numbers) > 0
            distances = [
                abs(math.log(number / float(value))) if by_ratio else abs(number - float(value))
                for number in numbers
            ]
            return axis.choices[distances.index(min(distances))]


def place_of(axis: Float | Int, value: float) -> float:
    """Returns how far a value lies along a range: 0 at its low end, 1 at its high end.

    It lies below 0 or above 1 outside of the range, and in the middle of one that has no width.

    >>> place_of(Float(low=1e-4, high=1.0, log=True), 0.01)
    0.5
    """
    low, high, at = float(axis.low), float(axis.high), float(value)
    if axis.log:
        low, high, at = math.log(low), math.log(high), math.log(max(at, 1e-300))
    return (at - low) / (high - low) if high > low else 0.5


def holds(axis: Dimension, value: Value | None) -> bool:
    """Tells whether a value lies on an axis, and is of the axis' type.

    >>> holds(Float(low=0.1, high=0.5), 0.1), holds(Float(low=0.1, high=0.5), "0.1")
    (True, False)
    """
    match axis:
        case Fixed():
            return bool(value == axis.value)
        case Choice():
            return value in axis.choices
        case Float() | Int():
            if not _is_number(value) or (isinstance(axis, Int) and not isinstance(value, int)):
                return False
            return axis.low <= value <= axis.high


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def format_value(value: Value) -> str:
    """Returns a value in at most six significant digits, without trailing zeros.

    >>> format_value(0.00250000001), format_value(True), format_value(1 / 3)
    ('0.0025', 'true', '0.333333')
    """
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _check_range(low: float, high: float, log: bool) -> None:
    if low > high:
        raise ValueError(f"low = {low:g} is above high = {high:g}: swap them")
    if log and low <= 0:
        raise ValueError(f"low = {low:g} with log = true: a log range must start above 0")
