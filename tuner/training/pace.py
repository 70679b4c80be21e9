"""How often a loop steps a schedule, kept so that it can be driven so again outside the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


class Rhythm:
    """Whether a count grows by the same amount from one call to the next.

    The last of all calls may come early, as at the end of an epoch that is cut short.

    Attributes:
        size: By how much it grows, or None before the first call.
        regular: Whether it has grown by that at each.
    """

    def __init__(self) -> None:
        self.size: int | None = None
        self.regular = True
        self._early = False

    def add(self, growth: int) -> None:
        """Takes in by how much it has grown since the last call."""
        if self.size is None:
            self.size = growth
        elif self._early or growth > self.size:
            self.regular = False
        else:
            self._early = growth < self.size

    def state_dict(self) -> dict[str, Any]:
        """Returns what it has seen."""
        return {"size": self.size, "regular": self.regular, "early": self._early}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from what :meth:`state_dict` gave."""
        self.size, self.regular, self._early = (state[k] for k in ("size", "regular", "early"))


class Pace:
    """The clock of a schedule in a run, which notes when it is asked: whenever a loop steps it.

    Args:
        clock: Tells the steps of the trial, as the schedule is to follow them.
        count: Tells how often the schedule's optimizer has stepped in this attempt.
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
        """Returns the steps of the trial, for a schedule that is being stepped."""
        now = (self._clock(), self._earlier + self._count())
        if now[0] > self._last[0]:  # else the schedule stays where it is
            self._calls += 1
            self._steps.add(now[0] - self._last[0])
            self._optimizer_steps.add(now[1] - self._last[1])
            self._last = now
        return now[0]

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
        """Returns what it has noted."""
        return {
            "calls": self._calls,
            "last": self._last,
            "count": self._earlier + self._count(),
            "steps": self._steps.state_dict(),
            "optimizer_steps": self._optimizer_steps.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from what :meth:`state_dict` gave, in another attempt."""
        self._calls, self._earlier = int(state["calls"]), int(state["count"]) - self._count()
        steps, optimizer_steps = state["last"]
        self._last = (int(steps), int(optimizer_steps))
        self._steps.load_state_dict(state["steps"])
        self._optimizer_steps.load_state_dict(state["optimizer_steps"])
