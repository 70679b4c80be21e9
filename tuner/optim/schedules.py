"""Builds torch learning-rate schedulers from the rows of the catalog."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from tuner.domain.catalog.dimensions import Value
from tuner.domain.catalog.schedule_functions import set_momentum, warm_momentum
from tuner.domain.catalog.schedules import (
    SCHEDULES,
    ScheduleFn,
    as_numbers,
    count_epochs,
    count_patience,
)
from tuner.optim.composite import CompositeOptimizer
from tuner.optim.groups import rate_key

Direction = Literal["minimize", "maximize"]


def build_schedule(
    name: str,
    values: dict[str, Value],
    optimizer: torch.optim.Optimizer,
    total_steps: int,
    *,
    clock: Callable[[], int] | None = None,
    epoch_steps: int | None = None,
    evaluations: int = 10,
    direction: Direction = "minimize",
    momentum_warmup: float = 0.0,
) -> Schedule:
    """Builds one of the catalog's schedules over an optimizer.

    Args:
        name: Its name in the catalog.
        values: Its hyperparameters, as the row's ``decode`` gives them.
        optimizer: The optimizer whose learning rates it multiplies, group by group.
        total_steps: Steps of a full trial, at least 1.
        clock: Returns the steps taken so far; left out, calls of ``step()`` are counted.
        epoch_steps: Steps of an epoch, at least 1, for a schedule that changes only from epoch to
            epoch; left out, it changes with every step.
        evaluations: Evaluations of a full trial, at least 1, in which patience is measured.
        direction: Whether a lower or a higher metric is better.
        momentum_warmup: The fraction of a full trial over which momentum, or beta1, rises to each
            group's own, for a schedule that leaves it alone.

    Returns:
        A torch scheduler, to be stepped after optimizer steps.

    >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5)
    >>> schedule = build_schedule("linear", {"warmup": 0.0, "final_ratio": 0.0}, optimizer, 4)
    >>> for _ in range(3):
    ...     optimizer.step()
    ...     schedule.step()
    >>> schedule.get_last_lr()
    [0.125]
    """
    row, epoch_steps = SCHEDULES[name], epoch_steps or 1
    length = count_epochs(total_steps, epoch_steps)
    plateau = build_plateau(name, values, evaluations=evaluations, direction=direction)
    return Schedule(
        optimizer,
        total_steps,
        row.factor(values, length),
        row.momentum(values, length),
        plateau,
        clock=clock,
        epoch_steps=epoch_steps,
        momentum_warmup=round(momentum_warmup * total_steps),
    )


def build_plateau(
    name: str, values: dict[str, Value], *, evaluations: int, direction: Direction
) -> Plateau | None:
    """Builds the rule that lowers the rate when the metric stops improving.

    Args:
        name: The schedule's name in the catalog.
        values: Its hyperparameters.
        evaluations: Evaluations of a full trial, at least 1.
        direction: Whether a lower or a higher metric is better.

    Returns:
        The rule, or None where the schedule follows no metric.
    """
    if not SCHEDULES[name].follows_metric:
        return None
    numbers = as_numbers(values)
    return Plateau(numbers["factor"], count_patience(numbers, evaluations), direction)


class Schedule(LRScheduler):
    """A torch scheduler that multiplies every group's initial learning rate with a factor by step.

    Where an optimizer tunes its learning rate itself, the factor is on its ``lr_factor`` instead,
    and the momentum stays with the optimizer. Groups that join the optimizer in mid-run follow as
    well, from the rate they were added with; those frozen until some part of the run join
    through it.

    Args:
        optimizer: The optimizer.
        total_steps: Steps of a full trial.
        factor_fn: Returns the factor at a step, or an epoch.
        momentum_fn: Returns the momentum at a step, or an epoch; None leaves it alone.
        plateau: The rule that lowers the rate when the metric stops improving, if any.
        clock: Returns the steps taken so far; None counts calls of :meth:`step`.
        epoch_steps: Steps of an epoch, for functions of the epoch; 1 for functions of the step.
        momentum_warmup: Steps over which momentum, or beta1, rises to each group's own; 0 leaves
            it alone.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        total_steps: int,
        factor_fn: ScheduleFn,
        momentum_fn: ScheduleFn | None = None,
        plateau: Plateau | None = None,
        *,
        clock: Callable[[], int] | None = None,
        epoch_steps: int = 1,
        momentum_warmup: int = 0,
    ) -> None:
        self._total_steps = total_steps
        self._factor_fn = factor_fn
        self._momentum_fn = momentum_fn
        self._plateau = plateau
        self._clock = clock
        self._epoch_steps = epoch_steps
        self._momentum_warmup = momentum_warmup
        super().__init__(optimizer)

    def step(self, epoch: int | None = None) -> None:
        """Moves on to the step that comes next.

        With a clock, it is the clock's; this may then be called after every step or only now and
        then. Without one, it is one more than the last, as with every scheduler of torch.

        Args:
            epoch: Torch's deprecated argument; without it.
        """
        if self._clock is None:
            super().step(epoch)  # It warns where the order of calls skips the first step.
        else:
            self.last_epoch = self._clock()
        if isinstance(self.optimizer, CompositeOptimizer):
            self.optimizer.thaw(self.last_epoch / self._total_steps)
        self.adopt()

    def observe(self, value: float) -> None:
        """Takes an evaluation's metric; a schedule that follows it may lower the rate at once.

        Args:
            value: The metric; one that is not a number is no improvement.
        """
        if self._plateau is not None:
            self._plateau.observe(value)
            self.adopt()

    def adopt(self) -> None:
        """Sets every group's learning rate and momentum, new groups' too, to those due now."""
        scale = self._scale()
        for group in self.optimizer.param_groups:
            key = rate_key(group)
            group[key] = initial_rate(group, key) * scale
        if self._momentum_fn is not None:
            set_momentum(self._tunable(), self._momentum_fn(self._position()))
        elif self._momentum_warmup:
            warm_momentum(self._tunable(), self.last_epoch / self._momentum_warmup)

    def _tunable(self) -> list[dict[str, Any]]:
        """Returns the groups whose momentum is not their optimizer's own affair."""
        return [group for group in self.optimizer.param_groups if rate_key(group) == "lr"]

    def get_lr(self) -> list[float | Tensor]:
        """Returns every group's learning rate, or factor on it, where the schedule stands."""
        scale = self._scale()
        groups = self.optimizer.param_groups
        return [initial_rate(group, rate_key(group)) * scale for group in groups]

    def get_last_lr(self) -> list[float | Tensor]:
        """Returns every group's learning rate."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of the schedule, as plain values."""
        plateau = None if self._plateau is None else self._plateau.state_dict()
        return {"last_epoch": self.last_epoch, "plateau": plateau}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continues from a state of :meth:`state_dict`; restore the optimizer's own state first.

        Raises:
            KeyError: If the state is of another kind of scheduler.
        """
        self.last_epoch = state_dict["last_epoch"]
        if self._plateau is not None:
            self._plateau.load_state_dict(state_dict["plateau"])
        self.adopt()

    def _update_lr(self, epoch: int | None = None) -> None:
        # Torch's step() ends here, and would write into "lr", whatever drives the optimizer.
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch

    def _scale(self) -> float:
        """Returns the factor on every group's initial rate, where the schedule stands."""
        factor = self._factor_fn(self._position())
        return factor if self._plateau is None else factor * self._plateau.scale

    def _position(self) -> int:
        return self.last_epoch // self._epoch_steps


def initial_rate(group: dict[str, Any], key: str) -> Any:
    """Returns the rate, or factor on it, that a group joined its optimizer with.

    Args:
        group: The parameter group, which remembers it as torch's schedulers do.
        key: Its key, of :func:`tuner.optim.groups.rate_key`.
    """
    initial = "initial_lr" if key == "lr" else f"initial_{key}"
    if initial not in group:
        group[initial] = group[key]
    return group[initial]


class Plateau:
    """Torch's ReduceLROnPlateau over a stand-in whose learning rate is a scale on everyone's."""

    def __init__(self, factor: float, patience: int, direction: Direction) -> None:
        mode: Literal["min", "max"] = "min" if direction == "minimize" else "max"
        self._stand_in = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        self._rule = ReduceLROnPlateau(self._stand_in, mode, factor, patience, eps=0.0)

    @property
    def scale(self) -> float:
        """The factor on learning rates, in (0, 1]."""
        return float(self._stand_in.param_groups[0]["lr"])

    def observe(self, value: float) -> None:
        """Counts an evaluation."""
        self._rule.step(value)

    def state_dict(self) -> dict[str, Any]:
        """Returns the scale and the state of the rule."""
        return {"scale": self.scale, "rule": self._rule.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from a state of :meth:`state_dict`."""
        self._stand_in.param_groups[0]["lr"] = state["scale"]
        self._rule.load_state_dict(state["rule"])
