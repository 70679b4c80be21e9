"""How far a trial is: how long a full one is, and the steps taken, by what they cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

from tuner.domain.budget import Budget
from tuner.domain.train import FULL, BatchSize
from tuner.errors import SpecError


class Steps:
    """Counts the steps of a trial.

    A turn of the training loop costs one step, or as many as its optimizer calls a closure; where
    a turn steps several optimizers, the dearest counts. A loop that takes no turns here has its
    optimizers' steps counted, or its own where they are ahead, as with accumulated gradients.

    Args:
        budget: What a full trial trains.
        batch_size: Examples a step, or ``full``.
        at_most: Steps to cut a full trial to, or None.
        capped: Whether the optimizer can be told how often it may call its closure.

    Attributes:
        length: Steps of a full trial, or None while they are not known.
        epoch_steps: Steps of an epoch, or None while they are not known.
        turns: Turns of the loop that are over.
        begun: Whether the loop takes turns here.
        inside: Whether a turn is being taken.
        last_cost: What the last turn cost, or the last step of an optimizer with a closure.
        stopped: Why the loop ends before a full trial, by its own decision, or None.
    """

    def __init__(self, budget: Budget, batch_size: BatchSize, at_most: int | None, *, capped: bool):
        self._budget = budget
        self._batch_size = batch_size
        self._full = batch_size == FULL
        self._at_most = at_most
        self._capped = capped
        self._done = 0
        # What this turn has cost by each optimizer, and by the dearest.
        self._calls: Counter[torch.optim.Optimizer] = Counter()
        self._cost = 0
        # Over all turns: how often each optimizer has stepped, whatever that cost.
        self._stepped: Counter[torch.optim.Optimizer] = Counter()
        self._reached = 0
        self.last_cost = 1
        self.stopped: str | None = None
        self._go_on: Callable[[int], object] = lambda taken: None
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
        return self._done + (self._cost or self.inside)

    @property
    def trained(self) -> int:
        """Steps of a full trial that have been trained, as the loop counts them."""
        return self.taken if self.begun else max(self._least, self._reached)

    @property
    def is_over(self) -> bool:
        """Whether a full trial has been trained, or the loop has ended it."""
        return self.stopped is not None or self._done >= self.total

    @property
    def batch_size(self) -> int:
        """Examples a step.

        Raises:
            SpecError: If they are all there are, and nobody has said how many that is.
        """
        if self._batch_size == FULL:
            raise SpecError(
                'train.batch_size = "full" is the whole training set, and the run does not know '
                "how many examples that is: call run.measure(examples=len(dataset)) first."
            )
        return self._batch_size

    def measure(self, epoch_steps: int | None = None, examples: int | None = None) -> None:
        """Learns how many steps an epoch has, and so the length of a full trial.

        Args:
            epoch_steps: Steps of an epoch.
            examples: Size of the training set, the epoch's one batch where batches are full.

        Raises:
            SpecError: If batches are full and an epoch has several, or its size is not known.
        """
        if self._full and epoch_steps not in (None, 1):
            raise SpecError(
                f'train.batch_size = "full" makes an epoch one step, but the training loop has '
                f"{epoch_steps} batches an epoch: call run.measure(examples=len(dataset)), and "
                "give its loader batch_size=run.batch_size."
            )
        if self._full and examples is not None:
            self._batch_size, epoch_steps = examples, 1
        if epoch_steps is None:
            return
        self.epoch_steps = epoch_steps
        batch_size = 1 if self._budget.examples is None else self.batch_size
        self._set_length(self._budget.full_steps(epoch_steps, batch_size))

    def begin(self) -> None:
        """Starts counting turns."""
        self.begun = True
        self._start()

    def enter(self) -> int:
        """Starts a turn; returns the steps before it."""
        self.inside = True
        return self._done

    def leave(self) -> bool:
        """Ends a turn; returns whether it was the last."""
        taken = self.taken
        self.last_cost = taken - self._done
        self._done, self.turns = taken, self.turns + 1
        self.inside = False
        self._start()
        return self.is_over

    def _start(self) -> None:
        if self._cost:
            self._calls.clear()
            self._cost = 0

    def at(self, step: int | None) -> int:
        """Returns the steps taken at the end of a step, as the loop counts it from 0.

        Args:
            step: The step; left out, the present one. One that lies behind the optimizers, such as
                the number of an epoch, is taken for the present one too.
        """
        if self.begun or step is None:
            return self.taken
        return max(step + 1, self._least)

    def lags(self, step: int) -> bool:
        """Tells whether a step lies behind all optimizers by more than an evaluation."""
        behind = 0 if self.begun else self._least - (step + 1)
        return behind * self._budget.evaluations > self.total

    def reach(self, taken: int) -> bool:
        """Notes how far the loop says it is; returns whether that is beyond a full trial."""
        self._reached = max(self._reached, taken)
        return not self.begun and taken > self.total

    @property
    def _least(self) -> int:
        """Steps of the optimizer that has taken the fewest, in a loop that takes no turns."""
        return min(self._calls.values(), default=0)

    def of(self, optimizer: torch.optim.Optimizer) -> int:
        """Returns the steps taken, as the schedule of an optimizer is to follow them."""
        return self.taken if self.begun else self._calls[optimizer]

    def evaluations_by(self, taken: int) -> int:
        """Returns how many of the budgeted evaluations are due after so many steps.

        In whole numbers it is exactly how many of ``evaluation_step`` have come.
        """
        total = self.total
        return min(taken, total) * self._budget.evaluations // total

    def stepped(self, optimizer: torch.optim.Optimizer | None = None) -> int:
        """Returns how often an optimizer has stepped here, or left out, all of them."""
        return sum(self._stepped.values()) if optimizer is None else self._stepped[optimizer]

    def watch(self, optimizer: torch.optim.Optimizer, go_on: Callable[[int], object]) -> None:
        """Counts what an optimizer's steps cost.

        Args:
            optimizer: The optimizer.
            go_on: Called with the steps taken before each that is counted here. It may raise.
        """
        self._go_on = go_on
        optimizer.register_step_pre_hook(self._count)

    def state_dict(self) -> dict[str, Any]:
        """Returns how far the trial is, between two turns."""
        return {"done": self._done, "turns": self.turns, "length": self.length}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from what :meth:`state_dict` gave, its length included."""
        self._done, self.turns = int(state["done"]), int(state["turns"])
        self.length = int(state["length"])

    def _set_length(self, steps: int) -> None:
        self.length = min(steps, self._at_most or steps)

    def _count(self, optimizer: Any, args: Any, kwargs: Any) -> Any:
        """Wraps the closure handed to an optimizer's step, to count how often it is called."""
        self._stepped[optimizer] += 1
        closure = kwargs.get("closure") or (args[1] if len(args) > 1 else None)
        if closure is None:
            # A turn costs one, however many such steps it takes.
            if not self.begun:
                self._add(optimizer)
            return None
        if self._capped:
            self._cap(optimizer)
        before = self._cost

        def counted() -> Any:
            self._add(optimizer)
            self.last_cost = self._cost - before
            return closure()

        return (args[0], counted), {k: v for k, v in kwargs.items() if k != "closure"}

    def _add(self, optimizer: torch.optim.Optimizer) -> None:
        self._go_on(self.taken)
        self._calls[optimizer] += 1
        self._cost = max(self._cost, self._calls[optimizer])

    def _cap(self, optimizer: torch.optim.Optimizer) -> None:
        """Keeps the last step of L-BFGS from costing more than is left of the budget."""
        left = max(1, self.total - self._done - self._calls[optimizer])
        for group in optimizer.param_groups:
            for limit in group.keys() & {"max_iter", "max_eval"}:
                group[limit] = min(group[limit], left)
