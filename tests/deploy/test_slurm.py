"""deploy/slurm.sh as Slurm runs it: signals go to the script alone; scontrol only takes notes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import ROOT, MakeSpec
from tuner.cli.run import INTERRUPTED
from tuner.service.interruption import GRACE_S
from tuner.store import Database, Studies, StudyHandle
from tuner.store.records import read_record

SCRIPT = ROOT / "deploy" / "slurm.sh"


@pytest.fixture
def cluster(project: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a project on a node, whose environment is that of a task of an array."""
    programs = project / "bin"
    programs.mkdir()
    write_program(programs / "scontrol", 'echo "$@" >>"$TUNER_HOME/scontrol.log"')
    write_program(programs / "tuner", f'exec "{sys.executable}" -m tuner "$@"')
    home = project / "home"
    home.mkdir()
    (home / "url").write_text(f"{database_url}\n")
    for variable, value in {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "TUNER_STORAGE_FILE": str(home / "url"),
        "TUNER_HOME": str(home),
        "TUNER_STUDY": "small",
        "SLURM_JOB_ID": "4711",
        "SLURM_CPUS_PER_TASK": "1",
    }.items():
        monkeypatch.setenv(variable, value)
    return project


def write_program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def requeued(project: Path) -> str:
    log = project / "home" / "scontrol.log"
    return log.read_text() if log.exists() else ""


def test_script_is_bash_and_asks_for_its_signal_in_time() -> None:
    assert subprocess.run(["bash", "-n", SCRIPT], check=False).returncode == 0
    directives = re.findall(r"^#SBATCH --(\S+)", SCRIPT.read_text(), flags=re.MULTILINE)
    [ahead] = [d.partition("@")[2] for d in directives if d.startswith("signal=B:USR1@")]
    assert int(ahead) > GRACE_S
    assert "requeue" in directives
    # Slurm reads its directives before the first command alone.
    head, _, _ = SCRIPT.read_text().partition("\nset ")
    assert head.count("\n#SBATCH") == len(directives)


@pytest.mark.parametrize("missing", ["TUNER_STUDY", "TUNER_STORAGE_FILE", "TUNER_HOME"])
def test_script_asks_for_what_it_needs(
    cluster: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(missing)
    ended = run_script(cluster)
    assert ended.returncode != 0
    assert f"{missing}: names" in ended.stderr


def run_script(project: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", SCRIPT], cwd=project, capture_output=True, text=True, timeout=120, check=False
    )


def test_task_works_until_the_study_is_done(cluster: Path, study: StudyHandle) -> None:
    ended = run_script(cluster)
    assert ended.returncode == 0, ended.stderr
    assert "Trial 5" in ended.stdout
    assert not requeued(cluster)


def test_fault_of_the_worker_is_the_tasks(cluster: Path) -> None:
    ended = run_script(cluster)
    assert ended.returncode == 2, ended.stderr
    assert "there is no database yet" in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "scontrol"), [(signal.SIGUSR1, "requeue 4711\n"), (signal.SIGTERM, "")]
)
def test_asked_to_end_task_saves_its_trial_and_gives_it_back(
    cluster: Path,
    database: Database,
    make_spec: MakeSpec,
    number: signal.Signals,
    scontrol: str,
) -> None:
    endless = {"trials": 1, "steps": 400_000, "evaluations": 200}
    study = Studies(database).create(make_spec(budget=endless))
    with (cluster / "log").open("w+") as log:
        task = subprocess.Popen(
            ["bash", SCRIPT],
            cwd=cluster,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            wait_for_training(database, study, task)
            task.send_signal(number)
            code = task.wait(timeout=GRACE_S)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(task.pid, signal.SIGKILL)
        log.seek(0)
        text = log.read()
    assert code == INTERRUPTED, text
    assert "saved" in text
    assert len(list((cluster / "home").rglob("*.pt"))) == 1
    assert requeued(cluster) == scontrol


def wait_for_training(
    database: Database, study: StudyHandle, task: subprocess.Popen[bytes]
) -> None:
    """Waits until a trial has reported, so that it is in training whatever happens next."""
    for _ in range(2400):
        assert task.poll() is None
        record = read_record(database, study, 0)
        if record is not None and record.evaluations:
            return
        time.sleep(0.05)
    raise AssertionError("no trial reported")
