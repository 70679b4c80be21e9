from __future__ import annotations

from dataclasses import replace

from tuner.cli.roster import Roster
from tuner.service.pools.pool import Exit, Seat, SeatState, Slot


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
