"""A pool of workers that are processes of this machine."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import replace

from tuner.service.pools.pool import MAX_RESTARTS, Exit, Seat, SeatState, Slot
from tuner.service.pools.standby import Crew
from tuner.service.pools.worker_process import Job, WorkerProcess
from tuner.service.processes import share_of_cores


class LocalPool:
    """A :class:`tuner.service.pools.pool.Pool` of processes of this machine on one study.

    The processes share the cores, unless ``OMP_NUM_THREADS`` says how many each takes.

    Args:
        job: The study they work on, with their settings.
        slots: The slots, each of which gets a process.
        max_restarts: How often a worker that died is started again, at least 0.
        crew: Processes that were started beforehand for these slots.
    """

    def __init__(
        self,
        job: Job,
        slots: Sequence[Slot],
        *,
        max_restarts: int = MAX_RESTARTS,
        crew: Crew | None = None,
    ) -> None:
        self._job, self._crew = job, crew
        self._max_restarts = max_restarts
        self._seats = {slot.index: Seat(slot, device=slot.device) for slot in slots}
        self._processes: dict[int, WorkerProcess] = {}
        self._stopping = False

    @property
    def seats(self) -> Sequence[Seat]:
        """The slots and their workers, as known since the last :meth:`reap`."""
        return list(self._seats.values())

    @property
    def alive(self) -> int:
        """How many processes have not been seen to end."""
        return len(self._processes)

    def start(self) -> None:
        """Starts the processes."""
        for seat in self._seats.values():
            self._fill(seat)

    def reap(self) -> list[Exit]:
        """Starts processes that died again; returns all that ended since the last call."""
        exits = []
        for index, process in list(self._processes.items()):
            ended = process.poll()
            if ended is None:
                continue
            del self._processes[index]
            exits.append(self._follow(self._seats[index], ended))
        return exits

    def stop(self) -> None:
        """Asks every process to save its trial and end; does not wait."""
        self._stopping = True
        for index, process in self._processes.items():
            self._seats[index].state = SeatState.STOPPING
            process.terminate()

    def kill(self) -> None:
        """Ends every process at once; their trials are taken over later."""
        self._stopping = True
        for process in self._processes.values():
            process.kill()

    def _follow(self, seat: Seat, ended: Exit) -> Exit:
        if ended.died and not self._stopping and seat.restarts < self._max_restarts:
            seat.restarts += 1
            self._fill(seat)
            return replace(ended, restarted=True)
        seat.state = SeatState.DONE if ended.code == 0 else SeatState.FAILED
        return ended

    def _fill(self, seat: Seat) -> None:
        index = seat.slot.index
        standby = None if self._crew is None else self._crew.take(index)
        share = share_of_cores(len(self._seats))
        process = WorkerProcess(self._job, index, seat.slot.device, share, standby)
        self._processes[index] = process
        seat.state, seat.host, seat.pid = SeatState.RUNNING, platform.node(), process.pid
