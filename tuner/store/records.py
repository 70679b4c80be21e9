"""Records of trials, read from the database: all of them once, then only those that changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from tuner.domain.trials import Outcome, TrialRecord
from tuner.errors import NotFoundError
from tuner.store.connection.database import Database
from tuner.store.damage import Damaged
from tuner.store.identity import StudyHandle, look_up, match_uuid
from tuner.store.optuna import tables as ot
from tuner.store.trial_rows import build_records, read_reports

_Times = tuple[datetime | None, datetime | None]


class RecordReader:
    """Reads the trials of a study, each call only those that changed since the last.

    Args:
        database: The study's database.
        study: The study.
        follow_running: Whether running trials are returned at each new evaluation.
        evaluations: Whether trials come with their evaluations, which are most of the data.
    """

    def __init__(
        self,
        database: Database,
        study: StudyHandle,
        follow_running: bool = False,
        evaluations: bool = True,
    ) -> None:
        self._database = database
        self._study = study
        self._follow_running = follow_running
        self._evaluations = evaluations
        self._study_id = study.study_id
        self._told: dict[int, _Times] = {}
        self._running: dict[int, TrialRecord] = {}
        # By id in Optuna's tables: those that are not over, and the last one that was seen.
        self._open: set[int] = set()
        self._last = -1

    def sync(self) -> list[TrialRecord]:
        """Returns the trials that started or finished since the last call, by number.

        A running trial is returned once, with its parameters, and again when it has finished;
        where running trials are followed, also when it has been evaluated since, for one more
        query. A deleted study has no trials.
        """
        with self._database.read() as connection:
            rows = self._read_rows(connection)
            fresh = [row for row in rows if self._told.get(row.number) != _times(row)]
            records = self._build(connection, fresh)
            evaluated = self._read_evaluated(connection, rows) if self._follow_running else {}
        self._remember(rows, records)
        self._running |= evaluated
        return sorted([*records, *evaluated.values()], key=lambda record: record.number)

    def look_again(self) -> list[TrialRecord]:
        """Returns the running trials as they are now, with parameters added since they started."""
        with self._database.read() as connection:
            rows = [row for row in self._read_rows(connection) if row.number in self._running]
            records = self._build(connection, rows)
        return [record for record in records if record.outcome is Outcome.RUNNING]

    def _build(self, connection: sa.Connection, rows: Sequence[sa.Row[Any]]) -> list[TrialRecord]:
        return build_records(connection, rows, self._study.spec, evaluations=self._evaluations)

    def _read_rows(self, connection: sa.Connection) -> Sequence[sa.Row[Any]]:
        """Returns the rows of trials that may have changed; all, once the study was renamed."""
        rows = connection.execute(self._changeable()).all()
        if rows:
            return rows
        try:
            study_id = look_up(connection, self._study).study_id
        except NotFoundError:
            return rows
        if study_id != self._study_id:
            self._study_id, self._last, self._open = study_id, -1, set()
            rows = connection.execute(self._changeable()).all()
        return rows

    def _changeable(self) -> sa.CompoundSelect[Any]:
        """Returns the query of the trials that are new or were not over, each found by its id."""
        chosen = (
            sa.select(*ot.trial_columns)
            .join(ot.study_attributes, ot.study_attributes.c.study_id == ot.trials.c.study_id)
            .where(ot.trials.c.study_id == self._study_id, *match_uuid(self._study.uuid))
        )
        trial_id = ot.trials.c.trial_id
        # As one condition, "or" between them, SQLite would look through all of the study's.
        return sa.union_all(
            chosen.where(trial_id > self._last), chosen.where(trial_id.in_(self._open))
        ).order_by(trial_id.name)

    def _read_evaluated(self, connection: sa.Connection, rows: Any) -> dict[int, TrialRecord]:
        """Returns the running trials returned before that have been evaluated since, by number."""
        numbers = {
            row.trial_id: row.number
            for row in rows
            if row.number in self._running and self._told[row.number] == _times(row)
        }
        reports = read_reports(connection, list(numbers))
        return {
            number: dataclasses.replace(self._running[number], evaluations=reports[trial_id])
            for trial_id, number in numbers.items()
            if reports[trial_id] != self._running[number].evaluations
        }

    def _remember(self, rows: Any, records: list[TrialRecord]) -> None:
        by_number = {record.number: record for record in records}
        for row in rows:
            self._told[row.number] = _times(row)
            self._last = max(self._last, row.trial_id)
            if isinstance(row.state, Damaged) or row.state.is_finished():
                self._open.discard(row.trial_id)
                self._running.pop(row.number, None)
                continue
            self._open.add(row.trial_id)
            if row.number in by_number:
                self._running[row.number] = by_number[row.number]


def _times(row: sa.Row[Any]) -> _Times:
    """Returns the times of a trial, which differ between any two of its states."""
    return row.datetime_start, row.datetime_complete


def read_records(
    database: Database, study: StudyHandle, *, evaluations: bool = True
) -> list[TrialRecord]:
    """Returns every trial of a study, by number.

    Args:
        database: The study's database.
        study: The study.
        evaluations: Whether trials come with their evaluations, which are most of the data.
    """
    return RecordReader(database, study, evaluations=evaluations).sync()


def read_some(database: Database, study: StudyHandle, numbers: Sequence[int]) -> list[TrialRecord]:
    """Returns the trials of some numbers, without those that are missing or damaged."""
    with database.read() as connection:
        study_id = look_up(connection, study).study_id
        rows = [
            row
            for start in range(0, len(numbers), 10_000)
            for row in connection.execute(
                sa.select(*ot.trial_columns)
                .where(
                    ot.trials.c.study_id == study_id,
                    ot.trials.c.number.in_(numbers[start : start + 10_000]),
                )
                .order_by(ot.trials.c.trial_id)
            )
        ]
        return build_records(connection, rows, study.spec)


def read_record(database: Database, study: StudyHandle, number: int) -> TrialRecord | None:
    """Returns one trial, or None if it is missing or damaged."""
    return next(iter(read_some(database, study, [number])), None)
