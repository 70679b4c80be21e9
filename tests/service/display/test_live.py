"""The live view of a study, on a real terminal and in the sizes that a terminal may have."""

from __future__ import annotations

import io
import json
import re
import subprocess
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.trial import TrialState
from rich.console import Console

from tests.cli.terminals import run_on_terminal
from tests.conftest import MakeSpec
from tests.store.single_trials import SingleTrials
from tuner.domain.trials import Outcome, Proposal, TrialRecord
from tuner.report.terminal import TextConsole
from tuner.search import Proposer
from tuner.service.display.live import LiveView, tell_ending
from tuner.service.display.progress import Lines, LiveDisplay
from tuner.service.pools.pool import Seat, SeatState, Slot
from tuner.service.study_progress import StudyProgress
from tuner.store import Database, Studies, StudyHandle, WorkerIdentity

Tuner = Callable[..., subprocess.CompletedProcess[str]]

_SMALL = ("--set", "budget.trials=4", "--set", "budget.epochs=2", "--device", "cpu")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Trained:
    """A study that a worker trains, and the view of it."""

    def __init__(self, database: Database, study: StudyHandle) -> None:
        self.now_s = 0.0
        self.progress = StudyProgress(database, study, clock=lambda: self.now_s)
        self._ledger = SingleTrials(database, study, WorkerIdentity("a", "host", 7, "cpu", "0"))
        self._ledger.register(0.0, lambda ordinal: ordinal)
        self._proposer = Proposer(study.spec, seed=0)

    def train(self, values: Iterable[float | None], steps: int = 20) -> None:
        """Starts a trial for each value, and ends it with that; None leaves it in training."""
        for value in values:
            lease = self._ledger.start_one([], self._proposer.propose())
            assert lease is not None
            if value is not None:
                ending = {"steps": steps}
                self._ledger.finish_one(lease, TrialState.COMPLETE, value, ending)
        self.now_s += 10.0
        list(self.progress.update())

    def shown(self, width: int = 100, height: int = 50, seats: Iterable[Seat] = ()) -> list[str]:
        """Returns the lines of the view."""
        text = io.StringIO()
        console = Console(file=text, width=width, height=height, force_terminal=False)
        console.print(LiveView(self.progress, list(seats)))
        return [line.rstrip() for line in text.getvalue().splitlines()]


@pytest.fixture
def trained(database: Database, make_spec: MakeSpec) -> Trained:
    spec = make_spec(budget={"trials": 12, "steps": 20, "evaluations": 4})
    return Trained(database, Studies(database).create(spec))


def test_view_tells_standings_workers_endings_pace_and_time_left(trained: Trained) -> None:
    assert "starting …" in trained.shown()[0]
    trained.train([0.123456, 0.5, 0.0625, None])
    lines = trained.shown()
    assert lines[0].split()[-3:] == ["30.0", "s", "left"]
    assert "3/12" in lines[0]
    assert lines[1] == "1 running  6 steps a second"
    assert re.fullmatch(r"best 0\.0625 \(\w+, \w+\)  █+[▁-█]*▁", lines[2])
    table = "\n".join(lines)
    assert re.search(r"optimizer\s+val_loss\s+complete\s+pruned\s+diverged\s+trial", table)
    assert re.search(r"host 7\s+working\s+1\s+3\s+cpu", table)
    assert re.search(r"trial 2 \w+/\w+ complete 0\.0625$", table)


def test_view_of_a_study_that_nobody_trains_says_so(database: Database, study: StudyHandle) -> None:
    text = io.StringIO()
    Console(file=text, width=80, height=30).print(LiveView(StudyProgress(database, study)))
    assert "no worker" in text.getvalue().splitlines()[0]


def test_best_optimizer_stands_first(trained: Trained) -> None:
    trained.train([0.5, 0.4, 0.3, 0.2])
    lines = trained.shown()
    head = next(place for place, line in enumerate(lines) if line.startswith("optimizer"))
    first, second = lines[head + 1].split(), lines[head + 2].split()
    assert first[1] == "0.2"
    assert second[1] == "–" or float(second[1]) > 0.2


@pytest.mark.parametrize("width", [20, 30, 45, 59])
def test_narrow_view_loses_columns_and_no_digit(trained: Trained, width: int) -> None:
    trained.train([0.0001234, 0.1234, None, None])
    lines = trained.shown(width)
    assert max(map(len, lines)) <= width
    text = " ".join(lines)
    for number in ("0.0001234", "2/12", "0.1234"):
        assert number in text
    assert ("Left out, since" in text) == (width < 55)


@pytest.mark.parametrize("height", [8, 12, 16, 24])
def test_low_view_is_no_higher_than_the_terminal(trained: Trained, height: int) -> None:
    trained.train([0.5, 0.4, 0.3, 0.2, 0.1, None])
    lines = trained.shown(100, height)
    assert len(lines) < height
    assert "best 0.1" in lines[2]


def test_pool_s_workers_come_with_their_seats_and_those_of_others_after_them(
    trained: Trained,
) -> None:
    trained.train([None, None, None])
    waiting = Seat(Slot(0, "cpu"), SeatState.WAITING, device="cpu")
    ours = Seat(Slot(1, "cpu"), SeatState.RUNNING, "cpu", "host", 7, restarts=2)
    text = "\n".join(trained.shown(seats=[waiting, ours]))
    assert re.search(r"–\s+waiting\s+–\s+–\s+cpu\s+0\n", text)
    assert re.search(r"host 7\s+working\s+3\s+0–2\s+cpu\s+2\n?", text)
    assert text.count("host 7") == 1
    assert re.search(r"–\s+waiting.*\n(.*\n)*.*host 7\s", "\n".join(trained.shown(seats=[waiting])))


def test_pace_is_that_of_the_last_minute(trained: Trained) -> None:
    trained.train([0.5], steps=1000)
    assert trained.progress.steps_per_s == 100.0
    trained.now_s += 70.0
    trained.train([0.5], steps=40)
    assert trained.progress.steps_per_s == pytest.approx(0.5)
    trained.now_s += 1000.0
    assert trained.progress.steps_per_s < 0.1


def failed(error: str, at: str) -> TrialRecord:
    proposal = Proposal({"optimizer": "adam", "schedule": "cosine"})
    return TrialRecord(3, Outcome.FAILED, proposal, attributes={"error": error, "error_at": at})


def test_failed_trial_names_the_exception_and_its_place(make_spec: MakeSpec) -> None:
    section, here = make_spec().study, Path.cwd()
    told = tell_ending(section, failed("ValueError: no\nmore", f"{here}/models/mine.py:12"))
    assert told == "trial 3 adam/cosine failed at models/mine.py:12: ValueError: no"
    away = tell_ending(section, failed("KeyError: 'x'", "/elsewhere/mine.py:3"))
    assert away.endswith("failed at /elsewhere/mine.py:3: KeyError: 'x'")
    assert tell_ending(section, failed("", "")).endswith("failed")
    assert len(tell_ending(section, failed("x" * 5000, ""))) < 300
    whole = replace(failed("", ""), outcome=Outcome.COMPLETE, value=0.5)
    assert tell_ending(section, whole) == "trial 3 adam/cosine complete 0.5"


@pytest.mark.parametrize("live", [False, True])
def test_markup_in_a_line_is_text(live: bool) -> None:
    stream = Terminal() if live else io.StringIO()
    display = (LiveDisplay if live else Lines)(TextConsole(stream))
    with display:
        display.say("Worker 0 says [/x] and [red]")
    assert "Worker 0 says [/x] and [red]" in stream.getvalue()


@pytest.mark.parametrize("live", [False, True])
def test_warnings_come_again_at_the_end_each_once(live: bool) -> None:
    stream = Terminal() if live else io.StringIO()
    display = (LiveDisplay if live else Lines)(TextConsole(stream))
    with display:
        display.warn("Worker 0 was killed.")
        display.warn("Worker 0 was killed.")
        warnings.simplefilter("always")
        warnings.warn("so it is", UserWarning, stacklevel=1)
    before = len(stream.getvalue())
    display.recall()
    again = stream.getvalue()[before:]
    assert again.count("Worker 0 was killed.") == 1
    assert "so it is" in again
    display.recall()
    assert stream.getvalue()[before:] == again


def test_quiet_lines_are_warnings_alone(trained: Trained) -> None:
    stream = io.StringIO()
    with Lines(TextConsole(stream), quiet=True) as display:
        display.say("a note")
        trained.train([0.5])
        display.show(trained.progress, list(trained.progress.endings))
        display.warn("look out")
    assert stream.getvalue() == "look out\n"


def test_run_on_a_terminal_shows_the_study_and_a_workload_s_warnings_again(project: Path) -> None:
    (project / "models" / "loud.py").write_text(
        "import warnings\nfrom models.parabola import Parabola\n\n\n"
        "class Loud(Parabola):\n"
        "    def model(self):\n"
        "        warnings.warn('[/x] the data [red] is old')\n"
        "        return super().model()\n"
    )
    shown = run_on_terminal(
        *("run", "--workload", "models.loud:Loud", "--optimizers", "sgd,adam", *_SMALL),
        *("--set", "train.batch_size=32"),
        cwd=project,
    )
    assert shown.code == 0, shown.text
    frame = next(f for f in shown.frames if "complete 0." in f and "trial 0 " in f)
    assert "optimizer" in frame
    assert "/4" in frame
    assert "steps a second" in frame
    assert re.search(r"worker\s+state\s+lanes\s+trials\s+device", frame)
    end = shown.text.partition("Warnings of this run:")[2]
    assert end.count("UserWarning: [/x] the data [red] is old") == 1


def test_watch_shows_a_study_until_it_is_over_and_prints_json(project: Path, typed: Tuner) -> None:
    created = typed("study", "create", "studies/parabola.toml", "--no-check", *_SMALL[:4])
    assert created.returncode == 0, created.stderr
    left = run_on_terminal(
        *("study", "watch", "parabola"),
        cwd=project,
        interrupt_at=lambda text: "Nobody works on 'parabola'" in text,
    )
    assert left.code == 0, left.text
    assert "0/4" in left.text
    assert "is over" not in left.text
    assert typed("study", "stop", "parabola").returncode == 0
    seen = run_on_terminal("study", "watch", "parabola", cwd=project, columns=50, lines=20)
    assert "'parabola' is over" in seen.text
    assert "\x1b" not in typed("study", "watch", "parabola").stderr
    now = json.loads(typed("study", "watch", "parabola", "--json").stdout)
    assert (now["study"], now["finished"], now["best"], now["workers"]) == ("parabola", 0, None, [])
    assert now["counts"]["complete"] == 0
