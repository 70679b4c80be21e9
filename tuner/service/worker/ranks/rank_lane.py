"""A trial that several processes train, as the only lane of its group: the worker's half."""

from __future__ import annotations

import contextlib
import selectors
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tuner.domain.places import make_private
from tuner.errors import StorageError, WorkloadError
from tuner.service.worker.held_trial import HeldTrial
from tuner.service.worker.ranks.likeness import check_alike
from tuner.service.worker.ranks.rank import GRACE_S, Rank
from tuner.service.worker.ranks.rank_messages import (
    OWN_PARTS,
    read_axis,
    tell_hang,
    tell_question,
    to_error,
    to_result,
)
from tuner.service.worker.starts import Start, place_of
from tuner.training.checkpoint_file import load_checkpoint, save_checkpoint
from tuner.training.loop import Ending, TrialResult
from tuner.training.place import Place
from tuner.training.processes.channel import Channel, Listener, Message
from tuner.training.processes.trial_process import holding
from tuner.training.reporting import Evaluation, Reporter
from tuner.training.run import Run

_CPU = torch.device("cpu")
_LOOK_S = 0.2
_CAUSE_S = 1.5
_ASK_S = 0.2
"""Seconds from one question of the ranks to the next, about."""

_LIFE_S = 1.0
"""Seconds between two signs of life to the worker while the ranks train."""


@dataclass(frozen=True)
class RankSetup:
    """How the ranks of a worker's trials are started.

    Attributes:
        size: How many there are.
        device: The device that they train on; on ``cuda`` each has one of its own.
        threads: Threads that each computes on, or None to let torch decide.
        log: Takes the lines that the first of them prints.
    """

    size: int
    device: str
    threads: int | None
    log: Callable[[str], None]


class RankLane:
    """A trial as the only lane of its group, trained by several processes.

    Args:
        trial: The trial.
        place: Its number, and the folder for its files.
        setup: How its ranks are started.
        reporter: The worker, which hears of it.
        stack: Ends the ranks when it is closed.
    """

    def __init__(
        self,
        trial: HeldTrial,
        place: Place,
        setup: RankSetup,
        reporter: Reporter,
        stack: contextlib.ExitStack,
    ) -> None:
        self._trial, self._place, self._setup = trial, place, setup
        self._reporter, self._stack = reporter, stack
        self._ranks: list[Rank] = []
        self._meeting = f"meeting-{uuid.uuid4().hex}"
        self._state: Path | None = None
        self._heard_at = self._lived_at = time.monotonic()
        self._selector = stack.enter_context(selectors.DefaultSelector())
        # Built and never trained, it refuses a stale checkpoint and knows where that stands.
        idle = Run(
            trial.spec,
            trial.config,
            device=torch.device("cpu"),
            reporter=reporter,
            state=trial.state,
        )
        self._seed = trial.spec.search.seed
        self._facts: Message = {
            "taken": idle.taken,
            "length": idle.length,
            "evaluated": idle.state.evaluated,
            "resumable": False,
            "described": {"seed": self._seed, "steps": idle.taken},
            "fault": None,
        }
        self._logged: list[tuple[int, str, float]] = []
        self._asked_at, self._asked_step = time.monotonic(), idle.taken
        self._answering = False
        self._raised: list[tuple[Rank, Message]] = []
        self._raised_at = 0.0

    @property
    def taken(self) -> int:
        """Steps taken, the present one included, as of the last question."""
        return int(self._facts["taken"])

    @property
    def total_steps(self) -> int:
        """Steps of a full trial."""
        if self._facts["length"] is None:
            raise WorkloadError("The ranks of the trial have not said how long it is.")
        return int(self._facts["length"])

    @property
    def evaluated(self) -> int:
        """How many of the budgeted evaluations have been reported."""
        return int(self._facts["evaluated"])

    @property
    def resumable(self) -> bool:
        """Whether the trial can go on from a checkpoint written now: all ranks wait."""
        return self._answering and bool(self._facts["resumable"])

    def take_logged(self, lane: int) -> list[tuple[int, str, float]]:
        """Returns the numbers logged since the last call, as (step, name, value)."""
        taken, self._logged = self._logged, []
        return taken

    def describe(self, lane: int) -> dict[str, Any]:
        """Returns the attributes to store of how the trial trained: its steps and costs."""
        return {**self._facts["described"], "processes": self._setup.size}

    def complete(self, lane: int) -> TrialResult:
        """Returns the result of the trial as it stands; it has failed if nothing was trained."""
        return TrialResult(Ending.COMPLETE, fault=self._facts["fault"])

    def state_dict(self, lane: int) -> dict[str, Any]:
        """Returns everything needed to continue the trial later, the randomness of all included.

        Raises:
            StorageError: If a rank cannot tell its state.
        """
        paths = [self._place.folder / f"state-{rank.number}.pt" for rank in self._ranks]
        for rank, path in zip(self._ranks, paths, strict=True):
            rank.channel.send({"do": "save", "path": str(path)})
        states = []
        for rank, path in zip(self._ranks, paths, strict=True):
            answer = self._hear_of(rank)
            if not answer.get("saved"):
                raise StorageError(f"Rank {rank.number} cannot be saved: {answer.get('error')}")
            states.append(load_checkpoint(path) or {})
            path.unlink(missing_ok=True)
        first, *others = states
        return {**first, "ranks": [{part: own[part] for part in OWN_PARTS} for own in others]}

    def _hear_of(self, rank: Rank) -> Message:
        while (answer := rank.channel.receive()) is not None:
            if "do" not in answer:
                return answer
            # A sign of life that it gave before.
        raise rank.tell_death()

    def train(self) -> list[TrialResult]:
        """Trains the trial to its end; returns its result as a list of one.

        Raises:
            RankError: If a rank has raised.
            RankKilledError: If a rank has been killed, or ranks hang.
        """
        folder = make_private(self._place.folder)
        wait = partial(self._reporter.advance, self.taken)
        held = self._stack.enter_context(holding(folder, wait))
        if self._trial.state is not None:
            self._state = folder / "state.pt"
            save_checkpoint(self._state, self._trial.state)
        listener = self._stack.enter_context(Listener())
        self._selector.register(listener, selectors.EVENT_READ, listener)
        for number in range(self._setup.size):
            self._start(number, listener, held)
        self._stack.callback(self._dismiss)
        self._heard_at = time.monotonic()
        while True:
            for key, _ in self._selector.select(_LOOK_S):
                self._hear(key, listener)
            self._check_alive()
            self._check_heard()
            if all(rank.asks is not None for rank in self._ranks):
                result = self._answer_all()
                if result is not None:
                    self._answering = True  # all wait to be let go
                    return [result]

    def _start(self, number: int, listener: Listener, held: int) -> None:
        rank = Rank(number, self._setup.size, listener, self._place.folder, (held,))
        self._stack.enter_context(rank.process)
        self._ranks.append(rank)
        self._selector.register(rank.process, selectors.EVENT_READ, rank)

    def _order(self, rank: Rank) -> Message:
        """Returns what a rank has to know of the trial."""
        spec = self._trial.spec
        return {
            "rank": rank.number,
            "size": self._setup.size,
            "device": self._setup.device,
            "threads": self._setup.threads,
            "spec": spec.to_json(),
            "config": asdict(self._trial.config),
            "study": self._place.study,
            "trial": self._place.number,
            "folder": str(self._place.folder),
            "meeting": self._meeting,
            "state": None if self._state is None else str(self._state),
            "timeout_s": max(60.0, spec.train.stall_s),
        }

    def _hear(self, key: selectors.SelectorKey, listener: Listener) -> None:
        """Takes what has arrived: a connection, output, or a message."""
        if key.data is listener:
            channel = self._stack.enter_context(contextlib.closing(listener.accept()))
            self._selector.register(channel, selectors.EVENT_READ)
        elif isinstance(key.data, Rank) and key.fileobj is key.data.process:
            self._read_output(key.data)
        elif isinstance(key.fileobj, Channel):
            rank: Rank | None = key.data
            for message in key.fileobj.arrived():
                rank = self._take(message, key.fileobj, rank, listener)
            if not key.fileobj.is_open:
                self._selector.unregister(key.fileobj)

    def _read_output(self, rank: Rank) -> None:
        for line in rank.process.read():
            if not rank.number and line.strip():
                self._setup.log(line)
        if rank.process.is_silent:
            self._selector.unregister(rank.process)

    def _take(
        self, message: Message, channel: Channel, rank: Rank | None, listener: Listener
    ) -> Rank | None:
        """Takes a message of a rank; the first one on a channel tells whose it is."""
        if rank is None:
            number = str(message.get("rank"))
            known = (
                listener.knows(message) and number.isdecimal() and int(number) < len(self._ranks)
            )
            if not known:
                channel.close()
                return None
            rank = self._ranks[int(number)]
            rank.link = channel
            self._selector.modify(channel, selectors.EVENT_READ, rank)
            channel.send(self._order(rank))
        else:
            self._heed(rank, message)
        return rank

    def _heed(self, rank: Rank, message: Message) -> None:
        self._heard_at = time.monotonic()
        if not rank.number and message.get("facts"):
            self._logged += [(int(s), str(n), float(v)) for s, n, v in message["facts"]["logged"]]
            self._facts |= message["facts"]
        match message.get("do"):
            case "raised":
                self._raised.append((rank, message))
                self._raised_at = time.monotonic()
            case "warn":
                self._reporter.warn(str(message["text"]))
            case "alive":
                self._reporter.advance(self.taken)
            case _:
                rank.asks = message

    def _check_alive(self) -> None:
        """Raises what has befallen a rank; of several, the cause.

        Where one dies, the others soon raise that they have lost the connection to it. So what is
        raised waits a moment for a death to be seen.
        """
        for rank in self._ranks:
            if rank.process.poll() is not None and not self._drain(rank):
                raise rank.tell_death()
        if self._raised and time.monotonic() - self._raised_at > _CAUSE_S:
            rank, message = self._raised[0]
            raise to_error(rank.number, message)

    def _check_heard(self) -> None:
        """Gives the worker a sign of life; raises where no rank has given one for too long.

        The worker's own watchdog could only end the worker, and would not know who waits for whom.
        """
        now, stall_s = time.monotonic(), self._trial.spec.train.stall_s
        if now - self._heard_at > stall_s:
            raise tell_hang({rank.number: rank.asks for rank in self._ranks}, stall_s)
        if now - self._lived_at > min(_LIFE_S, stall_s / 4):
            self._lived_at = now
            self._reporter.advance(self.taken)

    def _drain(self, rank: Rank) -> bool:
        """Takes the last messages of a rank that has ended; returns whether it has raised."""
        while rank.link is not None and rank.link.is_open:
            for message in rank.link.arrived():
                self._heed(rank, message)
        return any(rank is each for each, _ in self._raised)

    def _answer_all(self) -> TrialResult | None:
        """Answers what all ranks ask; returns the result of the trial once all have ended."""
        asked = [rank.asks or {} for rank in self._ranks]
        if len({tell_question(question) for question in asked}) > 1:
            each = ", ".join(f"rank {i} {tell_question(q)}" for i, q in enumerate(asked))
            raise WorkloadError(
                f"The ranks of the trial have come apart ({each}): every rank has to call "
                "run.report, run.steps, run.suggest_… and run.checkpoint as the others do."
            )
        question = asked[0]
        if "weights" in question:
            check_alike([each["weights"] for each in asked], self.taken)
        for rank in self._ranks:
            rank.asks = None
        if question["do"] == "ended":
            return to_result(question)
        self._answering = True
        try:
            answer = self._answer(question)
        finally:
            self._answering = False
        for rank in self._ranks:
            rank.channel.send(answer)
        return None

    def _answer(self, question: Message) -> Message:
        reporter = self._reporter
        match question["do"]:
            case "report":
                metrics = {str(name): float(v) for name, v in question["metrics"].items()}
                evaluation = Evaluation(int(question["index"]), int(question["step"]), metrics)
                [goes_on] = reporter.report([evaluation])
                return {"goes_on": goes_on}
            case "advance":
                step = int(question["step"])
                return {"goes_on": reporter.advance(step), "next": self._ask_next(step)}
            case "suggest":
                return {"value": reporter.suggest(question["name"], read_axis(question["axis"]))}
            case "save":
                reporter.save()
                return {}
            case kind:
                raise WorkloadError(f"A rank asks for {kind!r}, which tuner does not know.")

    def _ask_next(self, step: int) -> int:
        """Returns the step at which the ranks are to ask again, a moment from now."""
        now = time.monotonic()
        pace = (step - self._asked_step) / max(1e-6, now - self._asked_at)
        self._asked_at, self._asked_step = now, step
        return step + max(1, int(pace * _ASK_S))

    def _dismiss(self) -> None:
        """Lets ranks that have ended go, so that they leave their process group in peace."""
        for rank in self._ranks:
            if rank.link is not None:
                rank.link.send({"do": "leave"})
        until = time.monotonic() + GRACE_S
        while time.monotonic() < until and any(r.process.poll() is None for r in self._ranks):
            for key, _ in self._selector.select(_LOOK_S / 4):
                if isinstance(key.data, Rank) and key.fileobj is key.data.process:
                    self._read_output(key.data)
                else:
                    self._selector.unregister(key.fileobj)


def start_ranks(setup: RankSetup, folder: Path, stack: contextlib.ExitStack) -> Start:
    """Returns the start of a trial that several processes train together.

    Args:
        setup: How the ranks are started.
        folder: The study's folder.
        stack: Ends the ranks when it is closed.
    """

    def start(trials: Sequence[HeldTrial], reporter: Reporter) -> RankLane:
        [trial] = trials
        trial.load()
        stack.close()  # the ranks of an attempt that has gone wrong
        return RankLane(trial, place_of(trial, folder), setup, reporter, stack)

    return start
