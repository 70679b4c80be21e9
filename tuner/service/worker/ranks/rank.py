"""A rank as its worker knows it: its process, what it prints, and the connection to it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tuner.errors import RankError, RankKilledError, WorkloadError
from tuner.service.processes import TUNER, fate_of
from tuner.training.processes.channel import Channel, Listener, Message
from tuner.training.processes.output import Output
from tuner.training.processes.trial_file import withhold_secrets
from tuner.training.processes.trial_process import TrialProcess

GRACE_S = 2.0
"""Seconds that ranks have to leave by themselves once their trial is over."""


class Rank:
    """One rank of a trial, whose process is started with it.

    Args:
        number: Its number, from 0.
        size: How many ranks there are.
        listener: Takes its connection.
        folder: The trial's folder, which gets a log of what it prints.
        held: Files that are to stay open until it has ended.

    Attributes:
        number: Its number.
        process: Its process; whoever starts it ends it.
        link: The connection to it, once it has one.
        asks: The question that it waits for an answer to, or None.
    """

    def __init__(
        self, number: int, size: int, listener: Listener, folder: Path, held: Sequence[int]
    ) -> None:
        self.number = number
        self.link: Channel | None = None
        self.asks: Message | None = None
        self._output = Output(folder / f"rank-{number}.log")
        environment = {
            **withhold_secrets(os.environ),
            **listener.environment,
            "PYTHONUNBUFFERED": "1",
            "RANK": str(number),
            "LOCAL_RANK": str(number),
            "WORLD_SIZE": str(size),
            "LOCAL_WORLD_SIZE": str(size),
        }
        if Path("/sys/class/net/lo").exists():
            # Ranks of one machine: nobody else is to reach them.
            environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
        command = [*TUNER, "worker", "rank"]
        self.process = TrialProcess(
            command, environment, self._output, grace_s=GRACE_S, held=tuple(held)
        )

    @property
    def channel(self) -> Channel:
        """The connection to it.

        Raises:
            WorkloadError: If it has none yet.
        """
        if self.link is None:
            raise WorkloadError(f"Rank {self.number} has not connected.")
        return self.link

    def tell_death(self) -> RankError:
        """Ends it if it has not ended, and returns how it has, as the error of its trial."""
        code = self.process.poll()
        if code is None:
            self.process.kill()
            code = self.process.poll() or 0
        for _line in self.process.drain():
            pass  # it is in the log
        last = "\n".join(self._output.last)
        words = f"Rank {self.number} {fate_of(code)}"
        words += f"\nIts last lines:\n{last}" if last else ""
        return RankKilledError(words) if code < 0 else RankError(words)
