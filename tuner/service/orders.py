"""Orders of one process of tuner's to another, and the answers: each is a line of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Check:
    """The order to check a study's workload, before the study exists.

    Attributes:
        spec: The study, resolved, as plain values.
        device: The device to train on, as the user has typed it.
        looks: Whether to look if its model arrives with trained weights.
        code: The workload, packed, if it was passed as an object; empty to import it.
    """

    spec: dict[str, Any]
    device: str
    looks: bool = True
    code: str = field(default="", repr=False)


@dataclass(frozen=True)
class Work:
    """The order to work on a study until nothing is left to do; it is the last one.

    Attributes:
        study: The study's name.
        url: The database's URL.
        log: The file that the process appends its output to from now on.
        code: The workload, packed, if it was passed as an object; empty to import it, or if it has
            been checked here.
    """

    study: str
    url: str
    log: str
    code: str = field(default="", repr=False)


@dataclass(frozen=True)
class Compile:
    """The order to compile the steps of a study's cohorts.

    Attributes:
        spec: The study, resolved, as plain values.
        lanes: The number of trials that train as one.
        device: The device they train on.
        threads: The number of threads that the code is to compute on.
    """

    spec: dict[str, Any]
    lanes: int
    device: str
    threads: int


@dataclass(frozen=True)
class Send:
    """The order to send a study's curves to tools, until there are no more orders.

    Attributes:
        study: The study's name.
        targets: Where to, as ``--log-to`` takes it; a password may be in one.
    """

    study: str
    targets: Sequence[str]


Order = Check | Work | Compile | Send

_KINDS: dict[str, type[Order]] = {
    "check": Check,
    "work": Work,
    "compile": Compile,
    "send": Send,
}


@dataclass(frozen=True)
class Answer:
    """The answer to :class:`Check` or :class:`Compile`.

    Attributes:
        asks_nothing: Whether the workload is known to ask for no hyperparameters of its own.
        arrival: The weights that its model has as a trial begins, if that was looked at.
        ends_at_once: Whether the first evaluation of a command counted as its last.
        kind: The kind of the error, where there is one, such as ``SpecError``.
        error: Its message; empty where there is none.
    """

    asks_nothing: bool = False
    arrival: str = "fresh"
    ends_at_once: bool = False
    kind: str = ""
    error: str = ""

    def to_line(self) -> bytes:
        """Returns the answer as a line."""
        return _to_line(asdict(self))

    @classmethod
    def from_line(cls, line: bytes) -> Answer:
        """Returns the answer in a line."""
        return cls(**json.loads(line))


@dataclass(frozen=True)
class Told:
    """A line that a process that does :class:`Send` tells whoever ordered it.

    Attributes:
        text: The line.
        warns: Whether it tells of something that went wrong.
    """

    text: str
    warns: bool = False

    def to_line(self) -> bytes:
        """Returns it as a line."""
        return _to_line(asdict(self))

    @classmethod
    def from_line(cls, line: bytes) -> Told:
        """Returns what is in a line."""
        return cls(**json.loads(line))


def order_to_line(order: Order) -> bytes:
    r"""Returns an order as a line.

    >>> order_to_line(Check({"study": {}}, "cpu"))
    b'{"order": "check", "spec": {"study": {}}, "device": "cpu", "looks": true, "code": ""}\n'
    """
    [kind] = [name for name, kind in _KINDS.items() if isinstance(order, kind)]
    return _to_line({"order": kind, **asdict(order)})


def read_orders(lines: Iterable[bytes]) -> Iterator[Order]:
    """Yields the orders in lines, as they come, until there are no more."""
    for line in lines:
        values = json.loads(line)
        yield _KINDS[values.pop("order")](**values)


def _to_line(values: dict[str, Any]) -> bytes:
    return json.dumps(values).encode() + b"\n"
