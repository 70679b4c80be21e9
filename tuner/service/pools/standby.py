"""Processes that start before a study exists, check its workload, and become its workers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tuner.domain.fuse_plan import AUTO
from tuner.domain.spec import StudySpec
from tuner.errors import CommandError, SpecError, TunerError, WorkloadError
from tuner.service.ordered_process import OrderedProcess
from tuner.service.orders import Answer, Check, Work
from tuner.service.pools.pool import Slot
from tuner.service.processes import see_only, share_of_cores, threads_option

_TOLD: Mapping[str, type[TunerError]] = {
    kind.__name__: kind for kind in (SpecError, WorkloadError, CommandError)
}
"""The errors of a check that its caller gets as they are, by name."""


class Standby:
    """A process that loads what every worker needs, takes orders, and works on a study at last.

    Args:
        slot: The place that the worker will have in a pool; see :func:`see_only` for its device.
        threads: The number of threads it computes on, unless ``OMP_NUM_THREADS`` says so.
        fuse: The number of trials that train as one, as ``--fuse`` takes it.
        url: The database's URL if it is known, so that it is hidden in what a workload prints.
        code: The workload, packed, if it was passed as an object.
    """

    def __init__(
        self,
        slot: Slot,
        threads: int | None,
        fuse: str = AUTO,
        url: str | None = None,
        code: str = "",
    ) -> None:
        self._device, self._code = slot.device, code
        device, environment = see_only(slot.device, os.environ)
        if url is not None:
            environment["TUNER_STORAGE"] = url
        words = ("worker", "standby", "--device", device, "--fuse", fuse)
        share = threads_option(threads, environment)
        self._process = OrderedProcess([*words, *share], environment)

    def begin_check(self, spec: StudySpec, *, looks: bool) -> None:
        """Has the process check the workload of a study; does not wait for the answer.

        Args:
            spec: The study, resolved.
            looks: Whether to look if its model arrives with trained weights.
        """
        self._process.give(Check(spec.to_json(), self._device, looks, self._code))

    def end_check(self) -> Answer:
        """Waits until the workload is checked; returns what was seen of it.

        Raises:
            SpecError: If the workload does not run as the study says.
            WorkloadError: If its code raises, or has ended the process.
        """
        answer = self._process.read_answer()
        if answer is None:
            raise WorkloadError(
                f"The process that tried the workload {self._process.fate}, which code of the "
                "workload must have done: have it return, or raise an exception."
            )
        if answer.error:
            raise _TOLD.get(answer.kind, RuntimeError)(answer.error)
        return answer

    def begin_work(self, study: str, url: str, log: Path) -> subprocess.Popen[bytes]:
        """Has the process work on a study, and returns it.

        Args:
            study: The study's name.
            url: The database's URL, which no list of processes shows.
            log: The file that its output is appended to from now on.
        """
        self._process.give(Work(study, url, str(log), self._code))
        self._process.stop_listening()
        return self._process.process

    def end(self) -> None:
        """Ends the process at once, and those that it has started: there is nothing to save."""
        self._process.end()


class Crew:
    """Standbys for all places of a pool; those that nobody has taken end with the context.

    Args:
        slots: The places.
        fuse: The number of trials that train as one, as ``--fuse`` takes it.
        url: The database's URL if it is known.
        code: The workload, packed, if it was passed as an object.
    """

    def __init__(
        self, slots: Sequence[Slot], fuse: str = AUTO, url: str | None = None, code: str = ""
    ) -> None:
        share = share_of_cores(len(slots))
        self._standbys = {slot.index: Standby(slot, share, fuse, url, code) for slot in slots}
        self._first = self._standbys[slots[0].index]

    def begin_check(self, spec: StudySpec, *, looks: bool) -> None:
        """Has the first process check a study's workload; see :meth:`Standby.begin_check`."""
        self._first.begin_check(spec, looks=looks)

    def end_check(self) -> Answer:
        """Waits until the workload is checked; see :meth:`Standby.end_check`."""
        return self._first.end_check()

    def take(self, index: int) -> Standby | None:
        """Returns the standby for a place, to be given work; None if it has been taken."""
        return self._standbys.pop(index, None)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        while self._standbys:
            self._standbys.popitem()[1].end()
