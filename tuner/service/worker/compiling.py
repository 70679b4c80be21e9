"""Has a process of its own compile the steps of cohorts, while these train by traces."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable

import torch
from filelock import FileLock, Timeout

from tuner.domain.spec import StudySpec
from tuner.errors import StorageError
from tuner.fused.compile_costs import CompileCosts, find_lock
from tuner.service.ordered_process import OrderedProcess
from tuner.service.orders import Answer, Compile
from tuner.training.device import free_bytes
from tuner.training.prepared_workload import PreparedWorkload

Log = Callable[[str], None]

_PROCESS_BYTES = 2.0**30
"""Memory that the process takes besides the workload's data, at most."""

_MEMORY = 0.5
"""Share of the free memory that it may take."""


def may_compile_aside(prepared: PreparedWorkload) -> bool:
    """Tells whether another process can compile while this one trains.

    On a GPU it would take memory of the device, and be measured by nobody; there, and where there
    is no memory for another copy of the data, this process compiles before it trains.

    Args:
        prepared: The workload on its device.
    """
    if prepared.device.type != "cpu":
        return False
    tensors = (*prepared.data.train, *prepared.data.val)
    # Loading may hold data twice for a moment.
    needed = _PROCESS_BYTES + 2 * sum(tensor.nbytes for tensor in tensors)
    return needed < _MEMORY * free_bytes(prepared.device)


class Compiling:
    """Compiles the steps of a study's cohorts in another process, one on a machine at a time.

    The code is found in Inductor's cache, by this worker and by all others: whoever compiles holds
    a lock beside it, and the others look for what it leaves. If this worker dies, in any way, the
    process ends; if that one does, or fails, cohorts go on by traces.

    Args:
        spec: The study, resolved.
        lanes: The number of trials that train as one.
        device: The device they train on.
        costs: The costs of the traces to be compiled.
        log: Takes a line of text.
    """

    def __init__(
        self, spec: StudySpec, lanes: int, device: torch.device, costs: CompileCosts, log: Log
    ) -> None:
        self._order = Compile(spec.to_json(), lanes, str(device), torch.get_num_threads())
        self._costs, self._log = costs, log
        self._process: OrderedProcess | None = None
        self._lock: FileLock | None = None
        self._answers: list[Answer | None] = []
        self._given_up = False

    def is_done(self) -> bool:
        """Tells whether the code is there, and has it compiled where nobody does so yet."""
        if self._process is not None:
            self._look()
        if self._process is not None or self._given_up:
            return False
        if self._costs.are_paid:
            return True
        self._begin()
        return False

    def end(self) -> None:
        """Ends the process, wherever it stands."""
        if self._process is not None:
            self._process.end()
            self._process = None
        self._release()
        self._given_up = True

    def _begin(self) -> None:
        try:
            lock = FileLock(find_lock())
            lock.acquire(timeout=0)
        except Timeout:
            return  # another one compiles
        except (OSError, StorageError, ImportError) as error:
            self._give_up(str(error))
            return
        self._lock = lock
        if self._costs.are_paid:  # by whoever has just released it
            self._release()
            return
        self._process = OrderedProcess(("worker", "compile"), os.environ)
        self._process.give(self._order)
        threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()

    def _listen(self, process: OrderedProcess) -> None:
        with contextlib.suppress(OSError, ValueError):  # it is ended meanwhile
            self._answers.append(process.read_answer())

    def _look(self) -> None:
        """Ends the process if it has answered, or died."""
        if self._process is None or not self._answers:
            return
        [answer] = self._answers
        process, self._process = self._process, None
        if answer is None:
            self._give_up(f"the process that compiles {process.fate}")
        elif answer.error:
            self._give_up(answer.error)
        process.end()
        self._release()
        if not self._given_up and not self._costs.are_paid:
            self._give_up("another code has been compiled than is needed")

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _give_up(self, why: str) -> None:
        self._given_up = True
        self._log(f"Fused training goes on without compiling: {why}.")
