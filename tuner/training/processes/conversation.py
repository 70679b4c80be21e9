"""The conversation of a worker with the processes of its trial: what they ask, as its run answers.

Of several ranks, rank 0 reports. The others ask alike, and get the answer that it got to its
question of the same number: so a decision reaches all ranks at the same step.
"""

from __future__ import annotations

import selectors
from collections import deque
from dataclasses import dataclass
from typing import Any

from tuner.errors import TunerError, WorkloadError
from tuner.training.processes.channel import Channel, Listener, Message
from tuner.training.processes.progress import Progress
from tuner.training.reporting import Interrupted, Pruned
from tuner.training.run import Run

ON, OVER, PRUNED, STOP = "on", "over", "pruned", "stop"
"""The answer to a report: the trial goes on, has trained in full, is pruned, or stops here."""

_REMEMBERED = 256


@dataclass
class _Caller:
    """A connected process.

    Attributes:
        channel: The connection.
        known: Whether it has shown the token.
        asked: Its questions that all ranks ask.
        waits: Whether it waits for rank 0 to ask the same.
    """

    channel: Channel
    known: bool = False
    asked: int = 0
    waits: bool = False


class Conversation:
    """Answers the processes of a trial until it closes with its context.

    Args:
        run: The trial.
        progress: Takes what they report.
        listener: Takes their connections.
        selector: Wakes up where they have something to say.

    Attributes:
        has_told: Whether a process has been told to leave, and does so by itself.
    """

    def __init__(
        self,
        run: Run,
        progress: Progress,
        listener: Listener,
        selector: selectors.BaseSelector,
    ) -> None:
        self._run, self._progress = run, progress
        self._listener, self._selector = listener, selector
        self._callers: dict[Channel, _Caller] = {}
        self._answers: deque[tuple[int, Message]] = deque(maxlen=_REMEMBERED)
        self._last: str | None = None  # what was told at the end
        self.has_told = False

    def __enter__(self) -> Conversation:
        self._selector.register(self._listener, selectors.EVENT_READ)
        return self

    def __exit__(self, *_: object) -> None:
        for channel in self._callers:
            channel.close()

    def hear(self, key: selectors.SelectorKey) -> None:
        """Takes a connection, or answers what one has sent.

        Raises:
            Pruned: If the trial is to stop because it is behind, or its metric is not finite.
            Interrupted: If it is to stop where it is.
        """
        if key.fileobj is self._listener:
            channel = self._listener.accept()
            self._callers[channel] = _Caller(channel)
            self._selector.register(channel, selectors.EVENT_READ)
            return
        channel = key.fileobj  # type: ignore[assignment]
        caller = self._callers[channel]
        for message in channel.arrived():
            if not caller.known:
                caller.known = self._listener.knows(message)
                if not caller.known:
                    channel.close()
                    break
            else:
                self._answer(caller, message)
        if not channel.is_open:
            self._selector.unregister(channel)
            del self._callers[channel]
            channel.close()

    def dismiss(self, key: selectors.SelectorKey) -> None:
        """Answers what one has sent once the trial has come to its end: it is to leave."""
        self._last = self._last or STOP
        self.hear(key)

    def _answer(self, caller: _Caller, message: Message) -> None:
        rank, kind = message.get("rank", 0), message.get("do")
        if not message.get("together"):
            caller.channel.send(self._try(kind, message))
            return
        number, caller.asked = caller.asked, caller.asked + 1
        if rank == 0:
            self._answer_all(number, kind, message, caller)
            return
        for place, answer in self._answers:
            if place == number:
                caller.channel.send(answer)
                return
        if self._last is not None:
            caller.channel.send({"state": self._last})
        else:
            caller.waits = True

    def _answer_all(self, number: int, kind: Any, message: Message, caller: _Caller) -> None:
        """Answers rank 0, and all ranks that have asked the same before."""
        ends: Pruned | Interrupted | None = None
        try:
            answer = self._try(kind, message)
        except (Pruned, Interrupted) as error:
            self._last = PRUNED if isinstance(error, Pruned) else STOP
            self.has_told = isinstance(error, Pruned)
            answer, ends = {"state": self._last}, error
        self._answers.append((number, answer))
        caller.channel.send(answer)
        for other in self._callers.values():
            if other.waits and other.asked == number + 1:
                other.waits = False
                other.channel.send(answer)
        if ends is not None:
            raise ends

    def _try(self, kind: Any, message: Message) -> Message:
        """Returns the answer to a message; an error of what was asked is one, too."""
        if self._last is not None:
            return {"state": self._last}
        handle = getattr(self, f"_on_{kind}", None) if isinstance(kind, str) else None
        if handle is None:
            return {"error": f"tuner does not know what {kind!r} asks for."}
        try:
            found: Message = handle(message)
        except TunerError as error:
            return {"error": str(error)}
        except (KeyError, TypeError, ValueError) as error:
            return {"error": f"malformed: {type(error).__name__}: {error}"}
        return {"state": self._state, **found}

    @property
    def _state(self) -> str:
        return OVER if self._progress.is_over else ON

    def _on_report(self, message: Message) -> Message:
        metrics, count = message["metrics"], message["count"]
        if not isinstance(metrics, dict):
            raise WorkloadError("metrics have to be numbers by name.")
        if self._run.metric not in metrics:
            raise WorkloadError(
                f"tuner.current().report() was given {', '.join(metrics) or 'nothing'}, but "
                f"study.metric is {self._run.metric!r}: report it too, or name one of these in the "
                "study file."
            )
        if count is None:
            self._progress.take_final(metrics)
        else:
            self._progress.take(int(count), metrics)
        return {}

    def _on_measure(self, message: Message) -> Message:
        self._run.measure(int(message["epoch_steps"]))
        return {}

    def _on_look(self, message: Message) -> Message:
        if message.get("count") is not None:
            self._progress.move(int(message["count"]))
        return {}

    def _on_log(self, message: Message) -> Message:
        self._run.log(**{str(name): float(value) for name, value in message["values"].items()})
        return {}

    def _on_test(self, message: Message) -> Message:
        self._run.report_test(**message["metrics"])
        return {}

    def _on_stop(self, message: Message) -> Message:
        self._run.stop(message["why"])
        return {}

    def _on_suggest(self, message: Message) -> Message:
        name, log = message["name"], bool(message.get("log"))
        if "choices" in message:
            return {"value": self._run.suggest_categorical(name, message["choices"])}
        low, high = message["low"], message["high"]
        suggest = self._run.suggest_int if message.get("whole") else self._run.suggest_float
        return {"value": suggest(name, low, high, log=log)}
