"""What is said of a study in training, where nothing can be redrawn."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from optuna.trial import TrialState
from rich.console import Console

from tests.store.single_trials import SingleTrials
from tuner.cli.progress import Lines, Scene
from tuner.domain.fuse_plan import FusePlan
from tuner.domain.trials import Outcome
from tuner.search import Proposer
from tuner.store import Database, RecordReader, StudyHandle, WorkerIdentity
from tuner.store.plans import keep_plan


class Display:
    """A study in training, and the lines said of it."""

    def __init__(self, database: Database, study: StudyHandle) -> None:
        self.now_s = 0.0
        self.scene = Scene(database, study, clock=lambda: self.now_s)
        self._reader = RecordReader(database, study)
        self._ledger = SingleTrials(database, study, WorkerIdentity("a", "host", 7, "cpu", "0"))
        self._ledger.register(0.0, lambda ordinal: ordinal)
        self._proposer = Proposer(study.spec, seed=0)
        self._text = io.StringIO()
        self._lines = Lines(Console(file=self._text, width=200))
        self.look()

    def train(self, *states: TrialState) -> None:
        for state in states:
            lease = self._ledger.start_one(self._proposer.defaults(), self._proposer.propose())
            assert lease is not None
            if state is TrialState.WAITING:
                self._ledger.release([lease])
            elif state is not TrialState.RUNNING:
                value = None if state is TrialState.FAIL else 0.5
                self._ledger.finish_one(lease, state, value, {"steps": 1})

    def look(self) -> list[str]:
        """Returns the lines said since the last look."""
        before = len(self._text.getvalue())
        news = self._reader.sync()
        self.scene.look()
        self._lines.show(self.scene, self.scene.take(news))
        return self._text.getvalue()[before:].splitlines()


@pytest.fixture
def display(database: Database, study: StudyHandle) -> Iterator[Display]:
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


def test_how_trials_train_is_told_once_it_is_known(database: Database, study: StudyHandle) -> None:
    scene = Scene(database, study, "auto")
    assert list(scene.tidings()) == []
    plan = FusePlan(8, trials=study.spec.budget.trials, reason="quicker")
    keep_plan(database, study, "auto on cpu", plan)
    assert list(scene.tidings()) == ["Up to 8 trials as one: quicker."]
    assert list(scene.tidings()) == []
    assert list(Scene(database, study, "off").tidings()) == []


def test_what_was_over_before_is_counted_and_not_told(database: Database, display: Display) -> None:
    display.train(TrialState.COMPLETE)
    later = Display(database, display.scene.study)
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
    counts = display.scene.counts
    assert (counts[Outcome.RUNNING], counts[Outcome.WAITING], display.scene.finished) == (1, 1, 1)
