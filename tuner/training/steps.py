"""The steps of a trial: how many a full trial has, and how many are taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

from tuner.domain.budget import Budget
from tuner.domain.train import FULL, BatchSize
from tuner.errors import SpecError, WorkloadError

_LONGEST_REASON = 200


class Steps:
    """Counts the steps of a trial.

    A turn is one iteration of the training loop over ``run.steps()``. It costs one step, or as
    many as its optimizer calls a closure; where a turn steps several optimizers, the dearest
    counts. A loop that takes no turns has its optimizers' steps counted, or its own where they
    are ahead, as with accumulated gradients.

    Args:
        budget: The length of a full trial, in steps, epochs or examples.
        batch_size: Examples a step, or ``full``.
        at_most: Steps to cut a full trial to, or None.
        capped: Whether the optimizer can be told how often it may call its closure.

    Attributes:
        length: Steps of a full trial, or None while they are not known.
        epoch_steps: Steps of an epoch, or None while they are not known.
        turns: Turns that are over.
        begun: Whether the loop takes turns.
        inside: Whether a turn is being taken.
        last_cost: Steps that the last turn cost, or the last step of an optimizer with a closure.
        stopped: The reason the loop gave for ending before a full trial, or None.
        elsewhere: Whether another process takes the steps, and tells how many.
    """

    def __init__(self, budget: Budget, batch_size: BatchSize, at_most: int | None, *, capped: bool):
        self._budget = budget
        self._batch_size = batch_size
        self._full = batch_size == FULL
        self._at_most = at_most
        self._capped = capped
        self._done = 0
        # The cost of this turn by optimizer, and the highest of them.
        self._calls: Counter[torch.optim.Optimizer] = Counter()
        self._cost = 0
        # Over all turns: how often each optimizer has stepped, whatever that cost.
        self._stepped: Counter[torch.optim.Optimizer] = Counter()
        self._reached = 0
        self.last_cost = 1
        self.stopped: str | None = None
        self.length: int | None = None
        self.epoch_steps: int | None = None
        self.turns = 0
        self.begun = False
        self.inside = False
        self.elsewhere = False
        if budget.steps is not None:
            self._set_length(budget.steps)
        if budget.epoch_steps is not None and not self._full:
            self.measure(budget.epoch_steps)

    @property
    def total(self) -> int:
        """Steps of a full trial.

        Raises:
            SpecError: If the budget counts epochs or examples, and no epoch's length is known.
        """
        if self.length is None:
            raise SpecError(
                "budget.epochs and budget.examples need to know an epoch's length: pass the "
                "loader, run.schedule(optimizer, loader) or run.steps(loader). Where there is "
                "none, set budget.epoch_steps to the steps of an epoch, or count in budget.steps."
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
            SpecError: If the batch is the full training set, whose size :meth:`measure` has not
                been given.
        """
        if self._batch_size == FULL:
            raise SpecError(
                'train.batch_size = "full" is the whole training set, and the run does not know '
                "how many examples that is: call run.measure(examples=len(dataset)) first."
            )
        return self._batch_size

    def measure(self, epoch_steps: int | None = None, examples: int | None = None) -> None:
        """Sets the steps of an epoch, and with them the length of a full trial.

        Args:
            epoch_steps: Steps of an epoch.
            examples: Size of the training set, the epoch's one batch where batches are full.

        Raises:
            SpecError: If batches are full and an epoch has several, or its size is not known, or
                ``budget.epoch_steps`` says otherwise.
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
        said = self._budget.epoch_steps
        if said not in (None, epoch_steps):
            raise SpecError(
                f"budget.epoch_steps = {said}, but an epoch of the workload has {epoch_steps} "
                "steps, as it tells itself: leave budget.epoch_steps out."
            )
        self.epoch_steps = epoch_steps
        batch_size = 1 if self._budget.examples is None else self.batch_size
        self._set_length(self._budget.full_steps(epoch_steps, batch_size))

    def follow(self, taken: int) -> None:
        """Counts the steps that another process has taken; fewer than before change nothing.

        Args:
            taken: All of them, of which those beyond a full trial are left out.
        """
        self.begun = self.elsewhere = True
        self._done = self.turns = max(self._done, min(taken, self.total))

    def begin(self) -> None:
        """Starts counting turns."""
        self.begun = True
        self._clear_cost()

    def enter(self) -> int:
        """Starts a turn and returns the steps taken before it."""
        self.inside = True
        return self._done

    def leave(self) -> bool:
        """Ends a turn and returns whether it was the last."""
        self.last_cost = self._cost or 1
        self._done += self.last_cost
        self.turns += 1
        self.inside = False
        if self._cost:
            self._clear_cost()
        return self.is_over

    def stop(self, why: str) -> None:
        """Ends the trial before its full length.

        Args:
            why: The reason, of which 200 characters are kept.

        Raises:
            WorkloadError: If it is empty.
        """
        if not isinstance(why, str) or not why.strip():
            raise WorkloadError(
                f"run.stop was given {why!r}: say in a few words why the trial ends early, such "
                'as run.stop("no gain for 5 evaluations").'
            )
        self.stopped = why.strip()[:_LONGEST_REASON]

    def _clear_cost(self) -> None:
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
        """Returns whether a step lies behind all optimizers by more than an evaluation."""
        behind = 0 if self.begun else self._least - (step + 1)
        return behind * self._budget.evaluations > self.total

    def reach(self, taken: int) -> bool:
        """Records the steps that the loop reports; returns whether they exceed a full trial."""
        self._reached = max(self._reached, taken)
        return not self.begun and taken > self.total

    @property
    def _least(self) -> int:
        """The fewest steps that an optimizer has taken, in a loop that takes no turns."""
        return min(self._calls.values(), default=0)

    def of(self, optimizer: torch.optim.Optimizer) -> int:
        """Returns the steps taken, as the schedule of an optimizer is to follow them."""
        return self.taken if self.begun else self._calls[optimizer]

    def evaluations_by(self, taken: int) -> int:
        """Returns the number of budgeted evaluations that are due after some steps.

        It counts exactly the steps of ``Budget.evaluation_step`` up to ``taken``.
        """
        total = self.total
        return min(taken, total) * self._budget.evaluations // total

    def is_due(self, step: int | None, evaluated: int) -> bool:
        """Returns whether another evaluation is due at the end of a step.

        Args:
            step: The step, as for :meth:`at`.
            evaluated: Evaluations that have been reported.
        """
        total = self.total
        taken = min(self.at(step), total)
        return taken * self._budget.evaluations >= (evaluated + 1) * total

    def stepped(self, optimizer: torch.optim.Optimizer | None = None) -> int:
        """Returns how often an optimizer has stepped in this attempt.

        Args:
            optimizer: The optimizer; left out, all of them are counted together.
        """
        return sum(self._stepped.values()) if optimizer is None else self._stepped[optimizer]

    def watch(self, optimizer: torch.optim.Optimizer, go_on: Callable[[int], object]) -> None:
        """Counts the steps of an optimizer from now on.

        Args:
            optimizer: The optimizer.
            go_on: Called with the steps taken before each that counts: each call of a closure,
                and each step where the loop takes no turns. It may raise.
        """

        def count(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
            self._stepped[optimizer] += 1
            closure = kwargs.get("closure") or (args[1] if len(args) > 1 else None)
            # Others call a closure once, if they are given one, as some trainers always do.
            if closure is not None and self._capped:
                counted = self._count_calls(optimizer, closure, go_on)
                return (args[0], counted), {k: v for k, v in kwargs.items() if k != "closure"}
            # A turn costs one, however many such steps it takes.
            if not self.begun:
                self._add(optimizer, go_on)
            return None

        optimizer.register_step_pre_hook(count)

    def describe(self) -> dict[str, Any]:
        """Returns the unusual properties of the steps, by name.

        ``stopped_early`` is the reason for ending before a full trial, and ``last_cost`` the cost
        of the last turn in steps, if more than one.
        """
        found: dict[str, Any] = {}
        if self.stopped is not None:
            found["stopped_early"] = self.stopped
        if self.last_cost > 1:
            found["last_cost"] = self.last_cost
        return found

    def state_dict(self) -> dict[str, Any]:
        """Returns the counts, between two turns, as plain values."""
        return {"done": self._done, "turns": self.turns, "length": self.length}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a :meth:`state_dict`, its length included."""
        self._done, self.turns = int(state["done"]), int(state["turns"])
        self.length = int(state["length"])

    def _set_length(self, steps: int) -> None:
        self.length = min(steps, self._at_most or steps)

    def _count_calls(
        self,
        optimizer: torch.optim.Optimizer,
        closure: Callable[[], Any],
        go_on: Callable[[int], object],
    ) -> Callable[[], Any]:
        """Returns a closure that counts how often the step of an optimizer calls it."""
        if self._capped:
            self._cap(optimizer)
        before = self._cost

        def counted() -> Any:
            self._add(optimizer, go_on)
            self.last_cost = self._cost - before
            return closure()

        return counted

    def _add(self, optimizer: torch.optim.Optimizer, go_on: Callable[[int], object]) -> None:
        go_on(self.taken)
        self._calls[optimizer] += 1
        self._cost = max(self._cost, self._calls[optimizer])

    def _cap(self, optimizer: torch.optim.Optimizer) -> None:
        """Limits the closure calls of L-BFGS to the steps that are left of the budget."""
        left = max(1, self.total - self._done - self._calls[optimizer])
        for group in optimizer.param_groups:
            for limit in group.keys() & {"max_iter", "max_eval"}:
                group[limit] = min(group[limit], left)
