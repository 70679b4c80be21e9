"""deploy/slurm.sh as Slurm runs it: signals go to the script alone; scontrol only takes notes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import ROOT, run_tuner
from tuner.cli.run import INTERRUPTED
from tuner.service.interruption import GRACE_S

SCRIPT = ROOT / "deploy" / "slurm.sh"


@pytest.fixture
def cluster(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a project on a node, whose environment is that of a task of an array."""
    programs = project / "bin"
    programs.mkdir()
    write_program(programs / "scontrol", 'echo "$@" >>"$TUNER_HOME/scontrol.log"')
    write_program(programs / "tuner", f'exec "{sys.executable}" -m tuner "$@"')
    home = project / "home"
    home.mkdir()
    (home / "url").write_text(f"sqlite:///{project / 'tuner.db'}\n")
    for variable, value in {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "TUNER_STORAGE_FILE": str(home / "url"),
        "TUNER_HOME": str(home),
        "TUNER_STUDY": "digits",
        "SLURM_JOB_ID": "4711",
        "SLURM_CPUS_PER_TASK": "1",
    }.items():
        monkeypatch.setenv(variable, value)
    return project


def write_program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def create_study(project: Path, steps: int, evaluations: int = 4) -> None:
    settings = ("budget.trials=1", f"budget.steps={steps}", f"budget.evaluations={evaluations}")
    ended = run_tuner(
        *("study", "create", "studies/digits.toml"),
        *(f"--set={setting}" for setting in settings),
        cwd=project,
    )
    assert ended.returncode == 0, ended.stderr


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
    ended = subprocess.run(
        ["bash", SCRIPT], cwd=cluster, capture_output=True, text=True, check=False
    )
    assert ended.returncode != 0
    assert f"{missing}: names" in ended.stderr


@pytest.mark.slow
def test_task_works_until_the_study_is_done(cluster: Path) -> None:
    create_study(cluster, steps=20)
    ended = subprocess.run(
        ["bash", SCRIPT], cwd=cluster, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert counts(cluster)["running"] == 0
    assert not requeued(cluster)


def test_fault_of_the_worker_is_the_tasks(cluster: Path) -> None:
    ended = subprocess.run(
        ["bash", SCRIPT], cwd=cluster, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2, ended.stderr
    assert "there is no database yet" in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "scontrol"), [(signal.SIGUSR1, "requeue 4711\n"), (signal.SIGTERM, "")]
)
def test_asked_to_end_task_saves_its_trial_and_gives_it_back(
    cluster: Path, number: signal.Signals, scontrol: str
) -> None:
    create_study(cluster, steps=200_000, evaluations=200)
    with (cluster / "log").open("w+") as log:
        task = subprocess.Popen(
            ["bash", SCRIPT],
            cwd=cluster,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            wait_for_training(cluster, task)
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


def counts(project: Path) -> dict[str, int]:
    report = run_tuner("study", "report", "digits", "--json", cwd=project)
    assert report.returncode == 0, report.stderr
    found: dict[str, int] = json.loads(report.stdout)["counts"]
    return found


def wait_for_training(project: Path, task: subprocess.Popen[bytes]) -> None:
    """Waits until a trial has reported, so that it is in training whatever happens next."""
    from tuner.store import Studies, open_database
    from tuner.store.records import read_record

    database = open_database(f"sqlite:///{project / 'tuner.db'}")
    try:
        study = Studies(database).find("digits")
        for _ in range(2400):
            assert task.poll() is None
            record = read_record(database, study, 0)
            if record is not None and record.evaluations:
                return
            time.sleep(0.05)
    finally:
        database.close()
    raise AssertionError("no trial reported")
