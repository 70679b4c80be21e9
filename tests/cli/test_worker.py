"""``tuner worker start`` where things go wrong around it: its output, its data, its database."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import MakeSpec, away
from tuner.domain.trials import Outcome
from tuner.store import Database, Studies, StudyHandle, read_records

# What a workload prints goes the same way as what the worker says.
_WORKLOADS = '''
import time
from pathlib import Path

from models.parabola import Parabola


class Talkative(Parabola):
    """Prints at every model."""

    def model(self):
        print("another model")
        return super().model()


class Slow(Parabola):
    """Gets its data for longer than anyone waits."""

    def data(self):
        Path("getting").touch()
        time.sleep(600)
        return super().data()
'''

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(project: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Returns what starts a worker on the study ``small``."""
    (project / "models" / "odd.py").write_text(_WORKLOADS)
    monkeypatch.setenv("TUNER_STORAGE", database.url)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # it hides what a buffer keeps
    command = (sys.executable, "-m", "tuner", "worker", "start", "small")
    return lambda **streams: subprocess.Popen(command, cwd=project, **streams)


def create(database: Database, make_spec: MakeSpec, workload: str) -> StudyHandle:
    identity = {"name": "small", "workload": f"models.odd:{workload}"}
    return Studies(database).create(make_spec(study=identity))


@pytest.mark.slow
@pytest.mark.parametrize("fate", ["full disk", "closed pipe"])
def test_worker_whose_words_find_no_place_trains_as_any(
    start: Start, database: Database, make_spec: MakeSpec, fate: str
) -> None:
    if fate == "full disk" and not Path("/dev/full").exists():
        pytest.skip("this system has no file that is always full")
    study = create(database, make_spec, "Talkative")
    if fate == "full disk":
        with Path("/dev/full").open("wb") as full:
            process = start(stdout=full, stderr=full)
    else:
        process = start(stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.close()
    assert process.wait() == 0
    outcomes = {record.outcome for record in read_records(database, study)}
    assert outcomes <= {Outcome.COMPLETE, Outcome.PRUNED}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_worker_that_still_gets_its_data_ends_when_it_is_asked_to(
    start: Start, project: Path, database: Database, make_spec: MakeSpec, number: signal.Signals
) -> None:
    study = create(database, make_spec, "Slow")
    with start(stdout=subprocess.PIPE) as process:
        while not (project / "getting").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        said, _ = process.communicate()
    assert process.returncode == 130
    assert said == b"Asked to stop: no trial is in training yet.\n"
    assert read_records(database, study) == []


class TestDatabaseAway:
    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url

    @pytest.mark.slow
    def test_worker_that_starts_meanwhile_waits(
        self, start: Start, database: Database, study: StudyHandle, postgres_server: str
    ) -> None:
        with away(postgres_server, database.url):
            process = start(stdout=subprocess.PIPE)
            assert process.stdout is not None
            assert b"It is tried again for " in process.stdout.readline()
        process.communicate()
        assert process.returncode == 0
        assert len(read_records(database, study)) == study.spec.budget.trials

    @pytest.mark.slow
    def test_worker_that_waits_ends_when_it_is_asked_to(
        self, start: Start, database: Database, study: StudyHandle, postgres_server: str
    ) -> None:
        with away(postgres_server, database.url):
            process = start(stdout=subprocess.PIPE)
            assert process.stdout is not None
            process.stdout.readline()
            process.terminate()
            process.communicate()
        assert process.returncode == 130
