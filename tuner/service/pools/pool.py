"""Pools of workers: their interface, wherever they run, and the loop that watches one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from tuner.service.interruption import GRACE_S, Interruption

MAX_RESTARTS = 10
"""The default for the times that a worker that died is started again."""

_POLL_S = 0.25


@dataclass(frozen=True)
class Slot:
    """A place for one worker.

    Attributes:
        index: Its number in the pool, from 0.
        device: The device of its worker, as ``--device`` takes it.
    """

    index: int
    device: str


def slots_on(devices: Sequence[str], per_device: int) -> list[Slot]:
    """Returns the slots of some devices, those of one device side by side.

    >>> [slot.device for slot in slots_on(["cuda:0", "cuda:1"], per_device=2)]
    ['cuda:0', 'cuda:0', 'cuda:1', 'cuda:1']

    Args:
        devices: The devices, as ``--device`` takes them.
        per_device: How many workers share a device.
    """
    names = [device for device in devices for _ in range(per_device)]
    return [Slot(index, device) for index, device in enumerate(names)]


class SeatState(StrEnum):
    """The state of a slot's worker."""

    WAITING = "waiting"
    RUNNING = "running"
    STOPPING = "stopping"
    DONE = "done"
    FAILED = "failed"


@dataclass
class Seat:
    """A slot and the worker in it.

    Attributes:
        slot: The slot.
        state: ``waiting`` until its process runs; ``done`` and ``failed`` are final.
        device: The device of its worker, as far as is known.
        host: The machine its process is on; empty while it is not placed.
        pid: Its process, or the last one it had.
        restarts: How often it was started again.
    """

    slot: Slot
    state: SeatState = SeatState.WAITING
    device: str = ""
    host: str = ""
    pid: int | None = None
    restarts: int = 0


@dataclass(frozen=True)
class Exit:
    """The end of a worker.

    Attributes:
        index: Its slot.
        code: Its exit code; negative is the signal that killed it.
        message: The reason it died; empty if it ended well.
        gave_up: Whether it ended by an error of its own, which another start would meet again.
        restarted: Whether its slot has another worker already.
        warnings: The warnings that Python has given in it, each once.
    """

    index: int
    code: int
    message: str
    gave_up: bool = False
    restarted: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def died(self) -> bool:
        """Whether a signal or a crash ended it, so that another start may help."""
        return self.code != 0 and not self.gave_up


class Pool(Protocol):
    """Some workers on one study, one a slot.

    A worker that ends by itself is done, one that gives up has failed, and one that dies is
    started again, up to a cap. If the process that holds the pool dies, the workers save and end.
    The database's URL is in no process list. No trial is lost with a worker: another one takes it
    over.
    """

    @property
    def seats(self) -> Sequence[Seat]:
        """The slots and their workers, as known since the last :meth:`reap`."""
        ...

    @property
    def alive(self) -> int:
        """How many slots have a worker, or wait for one."""
        ...

    def start(self) -> None:
        """Starts the workers; does not wait until they run."""
        ...

    def reap(self) -> list[Exit]:
        """Returns the workers that ended since the last call, having started some of them again."""
        ...

    def stop(self) -> None:
        """Asks every worker to save its trial and end; does not wait. None is started again."""
        ...

    def kill(self) -> None:
        """Ends every worker at once; their trials are taken over from their last checkpoints."""
        ...


@dataclass(frozen=True)
class Moment:
    """The events in a pool since the last moment.

    Attributes:
        exits: The workers that ended.
        stopping: Whether the workers have been asked to stop.
        lost: Whether they were killed before they had saved.
    """

    exits: list[Exit] = field(default_factory=list)
    stopping: bool = False
    lost: bool = False


def tend(pool: Pool, interruption: Interruption) -> Iterator[Moment]:
    """Starts a pool and yields a few times a second until its last worker has ended.

    Args:
        pool: The pool.
        interruption: When it is requested, the workers save and end; when it is insisted on, or
            after a grace time, they are killed.
    """
    pool.start()
    stopping_since: float | None = None
    lost = False
    while pool.alive:
        time.sleep(_POLL_S)
        if interruption.requested and stopping_since is None:
            stopping_since = time.monotonic()
            pool.stop()
        if stopping_since is not None and not lost:
            lost = interruption.insisted or time.monotonic() - stopping_since > GRACE_S
            if lost:
                pool.kill()
        yield Moment(pool.reap(), stopping_since is not None, lost)
