"""How far a trial is: how long a full one is, and the steps taken, by what they cost."""

from __future__ import annotations

import bisect
import functools
from collections import Counter
from typing import Any

import torch

from tuner.domain.spec import Budget, evaluation_steps
from tuner.errors import SpecError

_boundaries = functools.lru_cache(evaluation_steps)


class Steps:
    """Counts the steps of a trial.

    A turn of the training loop costs one step, or as many as its optimizer calls a closure; where
    a turn steps several optimizers, the dearest counts. A loop that takes no turns here has its
    optimizer's steps counted.

    Args:
        budget: What a full trial trains.
        batch_size: Examples a step.
        at_most: Steps to cut a full trial to, or None.
        capped: Whether the optimizer can be told how often it may call its closure.

    Attributes:
        length: Steps of a full trial, or None while they are not known.
        epoch_steps: Steps of an epoch, or None while they are not known.
        turns: Turns of the loop that are over.
        begun: Whether the loop takes turns here.
        inside: Whether a turn is being taken.
    """

    def __init__(self, budget: Budget, batch_size: int, at_most: int | None, *, capped: bool):
        self._budget = budget
        self._batch_size = batch_size
        self._at_most = at_most
        self._capped = capped
        self._done = 0
        self._calls: Counter[torch.optim.Optimizer] = Counter()
        self.length: int | None = None
        self.epoch_steps: int | None = None
        self.turns = 0
        self.begun = False
        self.inside = False
        if budget.steps is not None:
            self._set_length(budget.steps)

    @property
    def total(self) -> int:
        """Steps of a full trial.

        Raises:
            SpecError: If the budget counts epochs or examples, and no epoch's length is known.
        """
        if self.length is None:
            raise SpecError(
                "budget.epochs and budget.examples need to know an epoch's length: use "
                "run.schedule(optimizer, loader) and run.steps(loader), or set budget.steps."
            )
        return self.length

    @property
    def taken(self) -> int:
        """Steps taken, the present one included."""
        calls = max(self._calls.values(), default=0)
        return self._done + (max(1, calls) if self.inside else calls)

    @property
    def is_over(self) -> bool:
        """Whether a full trial has been trained."""
        return self._done >= self.total

    def measure(self, epoch_steps: int) -> None:
        """Learns how many steps an epoch has, and so the length of a full trial."""
        self.epoch_steps = epoch_steps
        self._set_length(self._budget.full_steps(epoch_steps, self._batch_size))

    def begin(self) -> None:
        """Starts counting turns."""
        self.begun = True
        self._calls.clear()

    def enter(self) -> int:
        """Starts a turn; returns the steps before it."""
        self.inside = True
        return self._done

    def leave(self) -> bool:
        """Ends a turn; returns whether it was the last."""
        self._done, self.turns = self.taken, self.turns + 1
        self.inside = False
        self._calls.clear()
        return self.is_over

    def at(self, step: int) -> int:
        """Returns the steps taken at the end of a step, as the loop counts it from 0."""
        return self.taken if self.begun else step + 1

    def of(self, optimizer: torch.optim.Optimizer) -> int:
        """Returns the steps taken, as the schedule of an optimizer is to follow them."""
        return self.taken if self.begun else self._calls[optimizer]

    def evaluations_by(self, taken: int) -> int:
        """Returns how many of the budgeted evaluations are due after so many steps."""
        return bisect.bisect_right(_boundaries(self.total, self._budget.evaluations), taken)

    def watch(self, optimizer: torch.optim.Optimizer) -> None:
        """Counts what an optimizer's steps cost."""
        optimizer.register_step_pre_hook(self._count)

    def state_dict(self) -> dict[str, Any]:
        """Returns how far the trial is, between two turns."""
        return {"done": self._done, "turns": self.turns, "length": self.length}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from what :meth:`state_dict` gave."""
        self._done, self.turns = int(state["done"]), int(state["turns"])

    def _set_length(self, steps: int) -> None:
        self.length = min(steps, self._at_most or steps)

    def _count(self, optimizer: Any, args: Any, kwargs: Any) -> Any:
        """Wraps the closure handed to an optimizer's step, to count how often it is called."""
        closure = kwargs.get("closure") or (args[1] if len(args) > 1 else None)
        if closure is None:
            # A turn costs one, however many such steps it takes.
            self._calls[optimizer] += not self.begun
            return None
        if self._capped:
            self._cap(optimizer)

        def counted() -> Any:
            self._calls[optimizer] += 1
            return closure()

        return (args[0], counted), {k: v for k, v in kwargs.items() if k != "closure"}

    def _cap(self, optimizer: torch.optim.Optimizer) -> None:
        """Keeps the last step of L-BFGS from costing more than is left of the budget."""
        left = max(1, self.total - self._done - self._calls[optimizer])
        for group in optimizer.param_groups:
            for limit in group.keys() & {"max_iter", "max_eval"}:
                group[limit] = min(group[limit], left)
