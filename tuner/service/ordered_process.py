"""A process of tuner's that does what this one orders."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import IO

from tuner.domain.places import project_folder
from tuner.service.orders import Answer, Order, order_to_line
from tuner.service.processes import TUNER, end_group, fate_of


class OrderedProcess:
    """A process that reads orders on standard input and answers them on standard output.

    It has a group of its own, and ends by itself when this process does: nobody gives it orders
    then.

    Args:
        words: The command of tuner's that it runs, and its options.
        environment: Its environment.
    """

    def __init__(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [*TUNER, *words],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=project_folder(),
            start_new_session=True,
        )

    def give(self, order: Order) -> None:
        """Gives it an order; does not wait for the answer."""
        with contextlib.suppress(BrokenPipeError):  # it has died, which its end tells
            orders = _there(self.process.stdin)
            orders.write(order_to_line(order))
            orders.flush()

    def read_answer(self) -> Answer | None:
        """Waits for its answer; None if it has ended without one, which :attr:`fate` tells."""
        line = _there(self.process.stdout).readline()
        return Answer.from_line(line) if line else None

    def read_lines(self) -> Iterator[bytes]:
        """Yields the lines of its answers, as they come, until it ends."""
        yield from _there(self.process.stdout)

    def stop_ordering(self) -> None:
        """Closes the pipe of its orders: there will be no more, so it ends once it is done."""
        with contextlib.suppress(OSError):  # an order that nobody has read
            _there(self.process.stdin).close()

    @property
    def fate(self) -> str:
        """How it has ended, once it has, in words."""
        return fate_of(self.process.wait())

    def stop_listening(self) -> None:
        """Closes the pipe of its answers: there will be none."""
        _there(self.process.stdout).close()

    def end(self) -> None:
        """Ends it at once, and the processes that it has started: there is nothing to save."""
        end_group(self.process.pid)
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):  # an order that nobody has read
                _there(pipe).close()


def _there(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise RuntimeError("The process was started without pipes.")
    return pipe
