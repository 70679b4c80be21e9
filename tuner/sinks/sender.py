"""The sender: it follows a study in the database, and writes what is new of it to a sink."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tuner.domain.trials import Decoder, TrialRecord
from tuner.sinks.sheets import Point, describe_ending, describe_study, describe_trial
from tuner.sinks.sink import Held, Sink
from tuner.store import Database, RecordReader, StudyHandle
from tuner.store.curves import read_curves


class Sender:
    """Writes the trials of a study to a sink, each call only what is new.

    Args:
        database: The study's database.
        study: The study.
        sink: The sink.

    Attributes:
        sent: The numbers of the trials that the sink holds whole.
    """

    def __init__(self, database: Database, study: StudyHandle, sink: Sink) -> None:
        self._database, self._study, self._sink = database, study, sink
        self._reader = RecordReader(database, study, follow_running=True, evaluations=False)
        self._decoder = Decoder(study.spec)
        self._due: dict[int, TrialRecord] = {}
        self._held: dict[int, Held] = {}
        self._opened = False
        self.sent: set[int] = set()

    @property
    def due(self) -> int:
        """The number of trials with news that have not been written yet."""
        return len(self._due)

    def send(self) -> None:
        """Writes what is new; after an error, the next call goes on with what it left.

        Raises:
            SinkAwayError: If the sink cannot be reached right now.
            SpecError: If the sink refuses what is written.
            UnavailableError: If the database is away.
        """
        self._due |= {record.number: record for record in self._reader.sync()}
        if not self._opened:
            study = self._study
            self._sink.open(describe_study(study.name, study.uuid, study.spec))
            self._opened = True
        for number, record in list(self._due.items()):
            self._write(record)
            del self._due[number]

    def _write(self, record: TrialRecord) -> None:
        """Writes what the sink lacks of a trial: its points so far, and its end."""
        number, trial = record.number, describe_trial(self._decoder, record)
        held = self._held.get(number) or self._sink.look(trial)
        if held.ended:
            self.sent.add(number)
            return
        # Once the curve is read whatever the trial has come to, its end is read already.
        ending = describe_ending(record)
        points = self._read_points(number)
        news = [point for point in points if held.lacks(point)]
        self._sink.write(trial, news, ending)
        if ending is None:
            # All numbers of a step come in one transaction, or in the one after it.
            last = max((point.step for point in points), default=0)
            known = frozenset((p.step, p.name) for p in points if p.step == last)
            self._held[number] = replace(held, before=max(held.before, last), points=known)
            return
        self._held.pop(number, None)
        self.sent.add(number)

    def _read_points(self, number: int) -> Sequence[Point]:
        curves = read_curves(self._database, self._study, number)
        return sorted(
            Point(step, name, value)
            for name, curve in curves.items()
            for step, value in curve.items()
        )
