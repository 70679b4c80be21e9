"""A worker as a process of its own that meets its fate at a known step.

Started by ``test_continuing.py`` as ``python -m tests.service.fated URL STUDY FUSE FATE``.
"""

from __future__ import annotations

import os
import signal
import sys
import time

import click
import torch

from tuner.domain.states import StudyState
from tuner.service import cohort_task, task
from tuner.service.interruption import Interruption
from tuner.service.worker import Worker
from tuner.store import Studies, open_database
from tuner.store.control import set_state

PAUSE = "pause"
AT = 12
"""Looks at whether to stop, about one a step, after which its fate comes."""


class Fated(Interruption):
    """Brings about a signal or a pause when it has been looked at a number of times.

    Just before, it waits for longer than the time between two checkpoints, so that there is one.
    """

    def __init__(self, fate: str, url: str, name: str) -> None:
        self._asked, self._looks = False, 0
        self._fate, self._url, self._name = fate, url, name
        super().__init__()

    @property
    def requested(self) -> bool:
        self._looks += 1
        if self._looks == AT - 2:
            time.sleep(0.2)
        if self._looks == AT:
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
    # It looks for orders at every step, not every few seconds.
    for module in (task, cohort_task):
        module.LOOK_S = module.LOOK_AT_REPORTS_S = -1.0  # type: ignore[attr-defined]
    database = open_database(url)
    with Fated(fate, url, name) as interruption:
        Worker(
            database=database,
            study=Studies(database).find(name),
            device=torch.device("cpu"),
            interruption=interruption,
            started_at=time.time(),
            log=click.echo,
            fuse=fuse,
        ).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
