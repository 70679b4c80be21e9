from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest

from tuner.domain.states import StudyState
from tuner.domain.trials import TrialRecord
from tuner.errors import SpecError, UnavailableError, WorkloadError
from tuner.service.pools.pool import Exit, Seat
from tuner.service.study_progress import StudyProgress
from tuner.service.study_run import RunEnd, run_pool, run_study
from tuner.store import Database, StudyHandle
from tuner.store.control import set_state


class Recorder:
    """A display that keeps the lines it is given."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.looks = 0

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def say(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.lines.append(text)

    def show_workers(self, seats: Sequence[Seat], exits: Sequence[Exit]) -> None:
        pass

    def show(self, progress: StudyProgress, finished: Iterable[TrialRecord]) -> None:
        assert list(finished) == []
        self.looks += 1


class Script:
    """A pool whose one worker ends as told, a look at a time."""

    def __init__(self, *looks: Exit) -> None:
        self._looks = list(looks)
        self.seats: Sequence[Seat] = ()

    @property
    def alive(self) -> int:
        return len(self._looks)

    def start(self) -> None:
        pass

    def reap(self) -> list[Exit]:
        return [self._looks.pop(0)]

    def stop(self) -> None:
        self._looks = self._looks[:1]

    def kill(self) -> None:
        self.stop()


def test_workers_that_end_before_the_study_is_done_are_an_error_with_the_last_reason(
    database: Database, study: StudyHandle
) -> None:
    with pytest.raises(WorkloadError, match="no such workload"):
        run_pool(
            Script(Exit(0, -9, "killed"), Exit(0, 2, "no such workload", gave_up=True)),
            database,
            study,
            Recorder(),
            "off",
        )
    with pytest.raises(WorkloadError, match="ended before the study was done"):
        run_pool(Script(Exit(0, 0, "")), database, study, Recorder(), "off")


def test_worker_that_was_started_again_is_told_and_is_no_failure(
    database: Database, study: StudyHandle
) -> None:
    set_state(database, study, StudyState.STOPPED)  # so that the study is done
    display, died = Recorder(), Exit(0, -9, "Worker 0 was killed.", restarted=True)
    last = Exit(0, -9, "Worker 0 was killed.")
    assert run_pool(Script(died, last), database, study, display, "off") == RunEnd(
        stopped_by="", lost=False, unsaved=0, is_command=False, failures=[last]
    )
    assert display.lines == ["Worker 0 was killed. It has been started again."]


@pytest.mark.parametrize(
    ("is_command", "remedy"), [(False, "run.steps()"), (True, "process.resumable = true")]
)
def test_trials_that_start_over_are_told_with_what_would_have_saved_them(
    is_command: bool, remedy: str
) -> None:
    end = RunEnd("Ctrl-C", lost=False, unsaved=2, is_command=is_command, failures=())
    [line] = end.announcements("tuner study run s")
    assert f"saved, but for 2 that will start over: without {remedy} none can be." in line


def test_database_that_is_away_is_told_once_and_the_watch_goes_on(
    database: Database, study: StudyHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_state(database, study, StudyState.STOPPED)
    update, looks = StudyProgress.update, iter((True, True, False))

    def update_if_there(progress: StudyProgress) -> Iterable[TrialRecord]:
        if next(looks):
            raise UnavailableError("It is away.")
        return update(progress)

    monkeypatch.setattr(StudyProgress, "update", update_if_there)
    display, lives = Recorder(), Exit(0, -9, "", restarted=True)
    run_pool(Script(lives, lives, Exit(0, 0, "")), database, study, display, "off")
    assert [line for line in display.lines if "away" in line] == [
        "It is away. Training goes on; reports are kept until it is back."
    ]
    assert display.looks == 1


def test_halted_study_is_left_alone(database: Database, study: StudyHandle) -> None:
    set_state(database, study, StudyState.PAUSED)
    with pytest.raises(SpecError, match=r"is paused.*tuner study resume small"):
        run_study(database, study, Recorder(), device="cpu", workers=1)
