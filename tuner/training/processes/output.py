"""The output of a command: kept in a file, its last lines for errors, and read for reports."""

from __future__ import annotations

import contextlib
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

LOG = "output.log"
"""The file in a trial's folder that has all output of its command."""

KEPT = 20
"""Lines of a command's output that the error of a failed trial shows."""

_LONGEST = 4096
_COUNTED = ("step", "epoch")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_NUMBER = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|nan|inf(?:inity)?)"
_PAIR = re.compile(
    rf"(?<![A-Za-z_])([A-Za-z_][\w./-]*)\s*[=:]\s*({_NUMBER})(?![\w.])", re.IGNORECASE
)
_COUNT = re.compile(r"(?<![\w./-])(step|epoch)[\s=:#\[(]{1,8}(\d{1,18})(?!\w|\.\d)", re.IGNORECASE)
_ERROR = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Interrupt|Warning|Exit)\b.*|[\w.]+Error: .*")
_PLACE = re.compile(r'^  File "(?P<file>.+)", line (?P<line>\d+)')


@dataclass(frozen=True)
class ReportLine:
    """A line that reports an evaluation.

    Attributes:
        step: The steps that it says have been taken, or None.
        epoch: The epochs, likewise.
        metrics: The numbers on it, by name.
    """

    step: int | None
    epoch: int | None
    metrics: dict[str, float]


@dataclass
class LineReader:
    """Reads reports from lines.

    Attributes:
        metric: The study's metric, without which a line reports nothing.
        pattern: A regular expression whose named groups are numbers; None reads ``name=number`` and
            ``name: number``, as many as there are, and ``Epoch 3`` or ``Step [200/1000]`` in any
            case.
    """

    metric: str
    pattern: str | None = None

    def __post_init__(self) -> None:
        self._pattern = None if self.pattern is None else re.compile(self.pattern)

    def read(self, line: str) -> ReportLine | None:
        """Returns what a line reports; None if it does not hold the metric.

        >>> LineReader("val_loss").read("step 20: val_loss=0.31, epoch=2")
        ReportLine(step=20, epoch=2, metrics={'val_loss': 0.31})
        """
        numbers = self._numbers(line)
        if self.metric not in numbers:
            return None
        counts = {} if self._pattern else _find_counts(line)
        for name in [name for name in numbers if name.lower() in _COUNTED]:
            counts.setdefault(name.lower(), _to_count(numbers.pop(name)))
        return ReportLine(counts.get("step"), counts.get("epoch"), numbers)

    def _numbers(self, line: str) -> dict[str, float]:
        if self._pattern is None:
            if self.metric not in line:  # most lines, and some are long
                return {}
            return {name: float(number) for name, number in _PAIR.findall(line)}
        found = self._pattern.search(line)
        numbers = {}
        for name, text in found.groupdict().items() if found else ():
            try:
                numbers[self._spell(name)] = float(text)
            except (TypeError, ValueError):  # a group that took no part, or found no number
                continue
        return numbers

    def _spell(self, group: str) -> str:
        """Returns the name that a group stands for: it can hold no dot, slash or dash."""
        spelt = re.sub(r"[./-]", "_", self.metric)
        return self.metric if group == spelt else group


def _find_counts(line: str) -> dict[str, int | None]:
    """Returns the first step and the first epoch that a line tells, by name."""
    counts: dict[str, int | None] = {}
    for name, digits in _COUNT.findall(line):
        counts.setdefault(name.lower(), int(digits))
    return counts


def _to_count(number: float) -> int | None:
    return int(number) if number.is_integer() and number >= 0 else None


@dataclass
class Output:
    """Splits a command's output into lines, and keeps it.

    Attributes:
        log: The file that it is appended to, for this user alone.
        last: The last lines.
    """

    log: Path
    last: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT))
    _rest: bytes = b""

    def __post_init__(self) -> None:
        self.log.touch(mode=0o600)
        self._file = self.log.open("ab")
        if self._file.tell():
            self._file.write(b"\n")  # an earlier attempt may have been cut off within a line

    def take(self, data: bytes) -> Iterator[str]:
        """Keeps bytes and yields the lines that they complete; a carriage return ends one, too."""
        try:
            self._file.write(data)
            self._file.flush()
        except OSError:
            pass  # a full disk ends no trial
        *lines, self._rest = _LINE_END.split(self._rest + data)
        if len(self._rest) > _LONGEST:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            yield self._keep(line)

    def close(self) -> Iterator[str]:
        """Closes the file, and yields the last line where nothing ends it."""
        with contextlib.suppress(OSError):  # what a full disk has not taken is tried once more
            self._file.close()
        if self._rest:
            yield self._keep(self._rest)
            self._rest = b""

    def _keep(self, line: bytes) -> str:
        text = line[:_LONGEST].decode("utf-8", "replace")
        if text.strip():
            self.last.append(text)
        return text

    def find_error(self) -> tuple[str, str]:
        """Returns the last line that tells of an error, and the last place of a traceback.

        Either is empty where there is none; the line is then the last one of all.
        """
        lines = list(self.last)
        errors = [line.strip() for line in lines if _ERROR.fullmatch(line.strip())]
        places = [found for line in lines if (found := _PLACE.match(line))]
        text = errors[-1] if errors else (lines[-1].strip() if lines else "")
        place = f"{places[-1]['file']}:{places[-1]['line']}" if places else ""
        return text, place
