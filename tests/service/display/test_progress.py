"""What is said of a study in training, where nothing can be redrawn."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from optuna.trial import TrialState
from rich.console import Console

from tests.store.single_trials import SingleTrials
from tuner.domain.trials import Outcome
from tuner.search import Proposer
from tuner.service.display.progress import Lines, Roster
from tuner.service.pools.pool import Exit, Seat, SeatState, Slot
from tuner.service.study_progress import StudyProgress
from tuner.store import Database, StudyHandle, TrialEnding, WorkerIdentity


class Display:
    """A study in training, and the lines said of it."""

    def __init__(self, database: Database, study: StudyHandle) -> None:
        self.now_s = 0.0
        self.progress = StudyProgress(database, study, clock=lambda: self.now_s)
        self._ledger = SingleTrials(database, study, WorkerIdentity("a", "host", 7, "cpu", "0"))
        self._ledger.register(0.0, lambda ordinal: ordinal)
        self._proposer = Proposer(study.spec, seed=0)
        self._text = io.StringIO()
        self._lines = Lines(Console(file=self._text, width=200))
        self.look()

    def train(self, *states: TrialState) -> None:
        for state in states:
            lease = self._ledger.start_one(self._proposer.openings(), self._proposer.propose())
            assert lease is not None
            if state is TrialState.WAITING:
                self._ledger.release([lease])
            elif state is not TrialState.RUNNING:
                value = None if state is TrialState.FAIL else 0.5
                self._ledger.finish_one(lease, state, value, {"steps": 1})

    def pause(self) -> None:
        """Starts a trial that pauses."""
        lease = self._ledger.start_one(self._proposer.openings(), self._proposer.propose())
        assert lease is not None
        self._ledger.pause([TrialEnding(lease, TrialState.PRUNED, 0.5, {})], 5, 5)

    def look(self) -> list[str]:
        """Returns the lines said since the last look."""
        before = len(self._text.getvalue())
        self._lines.show(self.progress, self.progress.update())
        return self._text.getvalue()[before:].splitlines()


@pytest.fixture
def display(database: Database, study: StudyHandle) -> Display:
    return Display(database, study)


def test_counts_are_those_of_the_moment_at_which_the_trial_of_the_line_ended(
    display: Display,
) -> None:
    display.train(TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED)
    lines = display.look()
    assert [line.split(" | ")[1] for line in lines] == [
        "1/6 done",
        "2/6 done, 1 failed",
        "3/6 done, 1 pruned, 1 failed",
    ]
    assert display.look() == []


def test_what_was_over_before_is_counted_and_not_told(database: Database, display: Display) -> None:
    display.train(TrialState.COMPLETE)
    later = Display(database, display.progress.study)
    later.train(TrialState.COMPLETE)
    [line] = later.look()
    assert line.startswith("trial 1 ")
    assert "2/6 done" in line


def test_time_is_told_now_and_then(display: Display) -> None:
    told = []
    for _ in range(4):
        display.now_s += 10
        display.train(TrialState.COMPLETE)
        told += display.look()
    assert [line.count(" left") for line in told] == [0, 1, 0, 1]
    assert told[1].endswith(" | 20.0 s, about 40.0 s left")


def test_trial_that_nobody_trains_is_waiting(display: Display) -> None:
    display.train(TrialState.RUNNING, TrialState.WAITING, TrialState.COMPLETE)
    display.look()
    counts = display.progress.counts
    assert (counts[Outcome.RUNNING], counts[Outcome.WAITING], display.progress.finished) == (
        1,
        1,
        1,
    )


def test_trial_at_a_rung_is_paused(display: Display) -> None:
    display.train(TrialState.RUNNING)
    display.pause()
    display.look()
    counts = display.progress.counts
    shown = (counts[Outcome.RUNNING], counts[Outcome.WAITING], counts[Outcome.PAUSED])
    assert shown == (1, 0, 1)
    assert display.progress.finished == 0


def seats(*states: SeatState) -> list[Seat]:
    return [
        Seat(
            Slot(index, "cpu"),
            state,
            device="cpu",
            host="here",
            pid=None if state is SeatState.WAITING else 100 + index,
        )
        for index, state in enumerate(states)
    ]


def test_worker_is_announced_when_it_starts_starts_again_and_ends() -> None:
    roster, [seat] = Roster(), seats(SeatState.WAITING)
    assert list(roster.changes([seat], [])) == []
    seat.pid = 7
    assert list(roster.changes([seat], [])) == ["worker 0 started: cpu of here, process 7"]
    assert list(roster.changes([seat], [])) == []
    seat.pid = 8
    killed = Exit(0, -9, "Worker 0 was killed by SIGKILL.", restarted=True)
    assert list(roster.changes([seat], [killed])) == [
        "worker 0 started again: cpu of here, process 8"
    ]
    assert list(roster.changes([seat], [Exit(0, 0, "")])) == ["worker 0 ended"]
    assert list(Roster().changes([], [Exit(0, 0, "")])) == [], "it had never started"


def test_worker_that_gives_up_is_announced_with_the_first_line_of_its_error() -> None:
    gave_up = Exit(0, 2, "no such workload\ntraceback", gave_up=True)
    assert list(Roster().changes([], [gave_up])) == ["worker 0 gave up: no such workload"]


def test_worker_that_died_is_announced_unless_it_was_started_again() -> None:
    killed = Exit(0, -9, "Worker 0 was killed by SIGKILL.")
    assert list(Roster().changes([], [killed])) == ["Worker 0 was killed by SIGKILL."]
    assert list(Roster().changes([], [replace(killed, restarted=True)])) == []


def test_lack_of_room_is_told_after_a_while_and_now_and_then() -> None:
    roster, some = Roster(), seats(SeatState.RUNNING, SeatState.WAITING, SeatState.WAITING)
    said = [roster.lack_of_room(some, now) is not None for now in range(140)]
    assert [now for now, line in enumerate(said) if line] == [10, 70, 130]
    line = Roster()
    assert line.lack_of_room(some, 0.0) is None
    assert line.lack_of_room(some, 10.0) == "waiting for room: 1 of 3 workers placed"


def test_waiting_anew_has_its_own_patience() -> None:
    roster, one = Roster(), seats(SeatState.WAITING)
    assert roster.lack_of_room(one, 0.0) is None
    assert roster.lack_of_room(seats(SeatState.RUNNING), 9.0) is None
    assert roster.lack_of_room(one, 100.0) is None
    assert roster.lack_of_room(one, 110.0) == "waiting for room: 0 of 1 workers placed"
