"""How often a loop steps a schedule, recorded so that exported code can step it as often."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


class Rhythm:
    """Records whether a count grows by the same amount from one call to the next.

    The last of all calls may come early, as at the end of an epoch that is cut short.

    Attributes:
        size: The growth at the first call, or None before it.
        regular: Whether the count has grown by ``size`` at every call but the last.
    """

    def __init__(self) -> None:
        self.size: int | None = None
        self.regular = True
        self._early = False

    def add(self, growth: int) -> None:
        """Records the growth of the count since the last call."""
        if growth == self.size and not self._early:
            return
        if self.size is None:
            self.size = growth
        elif self._early or growth > self.size:
            self.regular = False
        else:
            self._early = growth < self.size

    def state_dict(self) -> dict[str, Any]:
        """Returns the growth recorded so far, as plain values."""
        return {"size": self.size, "regular": self.regular, "early": self._early}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from a :meth:`state_dict`."""
        self.size, self.regular, self._early = (state[k] for k in ("size", "regular", "early"))


class Pace:
    """Gives a schedule the steps of its trial, and records how often a loop steps the schedule.

    Args:
        clock: Returns the steps of the trial, as the schedule is to follow them.
        count: Returns how often the schedule's optimizer has stepped in this attempt.
    """

    def __init__(self, clock: Callable[[], int], count: Callable[[], int]) -> None:
        self._clock = clock
        self._count = count
        # Steps that the optimizer took in earlier attempts.
        self._earlier = 0
        self._calls = 0
        self._last = (clock(), count())
        self._steps, self._optimizer_steps = Rhythm(), Rhythm()

    def __call__(self) -> int:
        """Returns the steps of the trial; a schedule calls this when the loop steps it."""
        step, last = self._clock(), self._last[0]
        if step > last:  # else the schedule stays where it is
            count = self._earlier + self._count()
            self._calls += 1
            self._steps.add(step - last)
            self._optimizer_steps.add(count - self._last[1])
            self._last = (step, count)
        return step

    def describe(self) -> dict[str, int | None]:
        """Returns how often the loop stepped the schedule.

        Returns:
            ``calls``; and from one call to the next the ``steps`` of the trial and the
            ``optimizer_steps``, each None where it changed.
        """
        rhythms = {"steps": self._steps, "optimizer_steps": self._optimizer_steps}
        sizes = {name: rhythm.size if rhythm.regular else None for name, rhythm in rhythms.items()}
        return {"calls": self._calls, **sizes}

    def state_dict(self) -> dict[str, Any]:
        """Returns the calls recorded so far, as plain values."""
        return {
            "calls": self._calls,
            "last": self._last,
            "count": self._earlier + self._count(),
            "steps": self._steps.state_dict(),
            "optimizer_steps": self._optimizer_steps.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from a :meth:`state_dict` of an earlier attempt."""
        self._calls, self._earlier = int(state["calls"]), int(state["count"]) - self._count()
        steps, optimizer_steps = state["last"]
        self._last = (int(steps), int(optimizer_steps))
        self._steps.load_state_dict(state["steps"])
        self._optimizer_steps.load_state_dict(state["optimizer_steps"])
