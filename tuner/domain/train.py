"""The ``[train]`` table: the settings that every trial of a study trains with."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field, field_validator

from tuner.domain.catalog.averages import AVERAGES, NO_AVERAGE
from tuner.domain.catalog.dimensions import Axis, Choice, Dimension, Finite, Fixed, Frozen, Value
from tuner.domain.catalog.hyperparameters import FRACTION, Hyperparameter
from tuner.domain.groups import Group

Precision = Literal["float32", "bfloat16", "float64"]

FULL: Final = "full"
"""The batch size that is the whole training set."""

BatchSize = int | Literal["full"]

MOMENTUM_WARMUP = "momentum_warmup"
"""The name of the axis over which momentum rises at the start of a trial."""

_MOMENTUM_WARMUP = Hyperparameter(MOMENTUM_WARMUP, 0.0, Fixed(value=0.0), "", bounds=FRACTION)


class Train(Frozen):
    """The ``[train]`` table: the settings that every trial trains with.

    Attributes:
        batch_size: Examples a step: a number, ``full`` for the whole training set, or
            ``{ choices = [...] }``.
        accumulate: Parts a step's batch is computed in, to need less memory.
        average: The weights that a trial is evaluated by: its last (``none``) or an average of
            them (``ema``, ``swa``), or ``{ choices = [...] }``.
        momentum_warmup: The fraction of a full trial, in [0, 1], over which the momentum or beta1
            rises to its own value; fixed or searched.
        grad_clip: Largest gradient norm, above 0; left out, gradients are not clipped.
        precision: Arithmetic of the forward pass: ``float32``, ``bfloat16`` (autocast) or
            ``float64``.
        schedule_by: Whether the learning rate may change every ``step`` or every ``epoch``.
        no_decay_on_biases_and_norms: Whether parameters with fewer than two dimensions are
            spared from weight decay.
        groups: Parameters that train otherwise than the rest; the first group that matches a
            parameter takes it.
        stall_s: Seconds without a sign of life (a step, a number logged, a part of an evaluation)
            after which a trial counts as hung: its process ends, and another goes on from its last
            checkpoint.
        checkpoint_s: Seconds of training between checkpoints; a shorter trial writes none.
    """

    batch_size: Axis = Fixed(value=128)
    accumulate: int = Field(default=1, ge=1, le=10**6)
    average: Axis = Fixed(value=NO_AVERAGE)
    momentum_warmup: Axis = Fixed(value=0.0)
    grad_clip: Finite | None = Field(default=None, gt=0)
    precision: Precision = "float32"
    schedule_by: Literal["step", "epoch"] = "step"
    no_decay_on_biases_and_norms: bool = False
    groups: tuple[Group, ...] = Field(default=(), strict=False)
    stall_s: Finite = Field(default=300.0, ge=1.0, le=86_400.0)
    checkpoint_s: Finite = Field(default=15.0, ge=0.1, le=86_400.0)

    @field_validator("groups")
    @classmethod
    def _check_groups(cls, groups: tuple[Group, ...]) -> tuple[Group, ...]:
        names = [group.name for group in groups]
        if len(set(names)) < len(names):
            raise ValueError(f"two groups share a name among {names}: give each its own")
        return groups

    @field_validator("batch_size")
    @classmethod
    def _check_batch_size(cls, axis: Dimension) -> Dimension:
        if not all(v == FULL or (type(v) is int and v > 0) for v in _values(axis)):
            raise ValueError(
                'batch_size is a whole number above 0, "full", or { choices = [32, 128] }'
            )
        return axis

    @field_validator("average")
    @classmethod
    def _check_average(cls, axis: Dimension) -> Dimension:
        if not all(v in AVERAGES for v in _values(axis)):
            names = ", ".join(f'"{name}"' for name in AVERAGES)
            raise ValueError(f"average is one of {names}, or {{ choices = [{names}] }}")
        return axis

    @field_validator("momentum_warmup")
    @classmethod
    def _check_momentum_warmup(cls, axis: Dimension) -> Dimension:
        return _MOMENTUM_WARMUP.fit(MOMENTUM_WARMUP, axis)

    @property
    def averages(self) -> tuple[str, ...]:
        """The averages that compete."""
        return tuple(str(value) for value in _values(self.average))

    @property
    def batch_sizes(self) -> tuple[BatchSize, ...]:
        """The batch sizes that compete."""
        return tuple(to_batch_size(value) for value in _values(self.batch_size))

    @property
    def warms_momentum(self) -> bool:
        """Whether any trial may warm its momentum up."""
        return self.momentum_warmup != Fixed(value=0.0)

    def axes(self) -> dict[str, Dimension]:
        """Returns its axes that are searched, by the name searched."""
        named = ("batch_size", "average", MOMENTUM_WARMUP)
        axes: dict[str, Dimension] = {name: getattr(self, name) for name in named}
        for group in self.groups:
            axes |= group.axes()
        return {name: axis for name, axis in axes.items() if not isinstance(axis, Fixed)}


def to_batch_size(value: Value) -> BatchSize:
    """Returns the batch size that a drawn value stands for."""
    return FULL if value == FULL else int(value)


def _values(axis: Dimension) -> tuple[Value, ...]:
    """Returns the values of an axis; a range has none that could stand in a list."""
    return axis.choices if isinstance(axis, Choice) else (getattr(axis, "value", ""),)
