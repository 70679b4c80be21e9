"""A worker as a process of its own that meets its fate at a known step.

Started by ``test_continuing.py`` as ``python -m tests.service.worker.fated URL STUDY FUSE FATE``.
"""

from __future__ import annotations

import os
import signal
import sys
import time

import click
import torch

from tuner.domain.states import StudyState
from tuner.service.interruption import Interruption
from tuner.service.worker import task
from tuner.service.worker.checkpoints import Checkpoints
from tuner.service.worker.worker import Worker
from tuner.store import Studies, open_database
from tuner.store.control import set_state

PAUSE = "pause"
LOOKS = 4
"""Looks at whether to stop, one or two a step, from a checkpoint that counts to its fate."""


class Fated(Interruption):
    """Brings about a signal or a pause, some looks after there is a checkpoint that counts."""

    def __init__(self, fate: str, url: str, name: str) -> None:
        self._asked, self._looks, self.armed = False, 0, False
        self._fate, self._url, self._name = fate, url, name
        super().__init__()

    @property
    def requested(self) -> bool:
        if not self.armed:
            time.sleep(0.05)  # so that a checkpoint is due before the trial is over
        self._looks += self.armed
        if self._looks == LOOKS:
            self._looks += 1
            if self._fate == PAUSE:
                database = open_database(self._url)
                set_state(database, Studies(database).find(self._name), StudyState.PAUSED)
            else:
                os.kill(os.getpid(), signal.Signals[self._fate])
        return self._asked

    @requested.setter
    def requested(self, value: bool) -> None:
        self._asked = value


def main(url: str, name: str, fuse: str, fate: str) -> None:
    # It looks for signals at every step, not every few seconds.
    task.LOOK_S = task.LOOK_AT_REPORTS_S = -1.0  # type: ignore[attr-defined]  # it imports them
    database = open_database(url)
    drop_former = Checkpoints.drop_former
    interruption = Fated(fate, url, name)
    with interruption:

        def drop_and_arm(self: Checkpoints) -> None:
            drop_former(self)
            interruption.armed = True

        Checkpoints.drop_former = drop_and_arm  # type: ignore[method-assign]  # this process is the test's alone
        Worker(
            database=database,
            study=Studies(database).find(name),
            device=torch.device("cpu"),
            interruption=interruption,
            started_at=time.monotonic(),
            log=click.echo,
            fuse=fuse,
        ).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
