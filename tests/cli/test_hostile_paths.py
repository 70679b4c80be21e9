"""What names files, and what a workload does to its surroundings, moves and deletes nothing."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.conftest import MakeSpec
from tuner.cli.main import cli
from tuner.service.folders import remove_folder, study_folder
from tuner.service.liveness import is_dead
from tuner.service.worker.checkpoints import sweep
from tuner.store import Database, Studies, StudyHandle, open_database

Tuner = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def valuable(tmp_path: Path) -> Path:
    """Returns a folder that a study's identity can be made to lead to."""
    folder = tmp_path / "valuable"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / f"trial-0-{'a' * 32}.pt").write_text("mine")
    return folder


@pytest.mark.parametrize("identity", ["{valuable}", "../../valuable", "", ".", "A" * 32, 7, None])
def test_study_whose_identity_is_a_path_deletes_nothing(
    project: Path, valuable: Path, identity: object
) -> None:
    def run(*arguments: str) -> str:
        return CliRunner().invoke(cli, arguments).output

    run("study", "create", "studies/parabola.toml", "--no-check")
    (project / ".tuner" / ("b" * 32)).mkdir(parents=True)
    text = str(valuable) if identity == "{valuable}" else identity
    with closing(sqlite3.connect("tuner.db")) as connection, connection:
        connection.execute(
            "UPDATE study_user_attributes SET value_json = ? WHERE key = 'tuner:uuid'",
            (json.dumps(text),),
        )
    for arguments in (
        *(("study", order, "parabola") for order in ("show", "report", "export", "repair")),
        *(("study", order, "parabola") for order in ("run", "pause", "stop", "resume")),
        *(("workers", order, "parabola") for order in ("list", "stop")),
        *(("trial", order, "parabola", "0") for order in ("show", "rerun")),
        ("run", "studies/parabola.toml", "--device", "cpu"),
        ("study", "delete", "parabola", "--yes"),
    ):
        said = run(*arguments)
        assert "not 32 hexadecimal digits" in said, (arguments, said)
        assert "fault of tuner" not in said
    assert "parabola" in run("study", "list")
    assert [path.name for path in valuable.rglob("*.pt")] == [f"trial-0-{'a' * 32}.pt"]
    assert (project / ".tuner" / ("b" * 32)).is_dir()


def test_worker_whose_id_is_a_path_is_nobody_known(tmp_path: Path) -> None:
    (tmp_path / "x.lock").write_text("")
    for worker in (str(tmp_path / "x"), "../x", "", "a" * 31):
        assert not is_dead(worker)


def test_links_among_a_studys_files_lead_to_no_deletion(
    database: Database, study: StudyHandle, valuable: Path, tmp_path: Path
) -> None:
    folder = study_folder(database.url, study)
    folder.mkdir(parents=True)
    (folder / "checkpoints").symlink_to(valuable / "checkpoints")
    sweep(folder, database, study)
    remove_folder(folder)
    assert not folder.exists()
    folder.symlink_to(valuable)
    sweep(folder, database, study)
    remove_folder(folder)
    assert [path.name for path in valuable.rglob("*.pt")] == [f"trial-0-{'a' * 32}.pt"]


RESTLESS = '''
"""Goes elsewhere as it is imported, and says what it knows."""
import os
import sys
import torch

os.makedirs("elsewhere", exist_ok=True)
os.chdir("elsewhere")


def train(run):
    print("environment", dict(os.environ))
    print("password=hunter2", "\\x1b]0;owned\\x07")
    sys.stderr.write(os.environ["PGPASSWORD"] + "\\r\\n")
    model = torch.nn.Linear(1, 1)
    optimizer = run.optimizer(model)
    schedule = run.schedule(optimizer)
    for step, _ in run.steps([0]):
        model(torch.ones(1, 1)).sum().backward()
        optimizer.step()
        schedule.step()
        if run.due(step):
            run.report(step, val_loss=1.0)
    return 1.0
'''


def test_workload_that_goes_elsewhere_moves_nothing_and_tells_no_secret(
    tuner: Tuner, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "hunter2hunter2")
    monkeypatch.setenv("TUNER_STORAGE", "sqlite:///here.db")
    (project / "restless.py").write_text(RESTLESS)
    (project / "mysampler.py").write_text(
        "import optuna\ndef build(seed): return optuna.samplers.RandomSampler(seed=seed)\n"
    )
    few = ("--set", "budget.trials=2", "--set", "budget.steps=2", "--device", "cpu")
    own = ("--set", "search.sampler=mysampler:build", "--set", "budget.evaluations=1")
    ended = tuner("run", "--workload", "restless:train", "--name", "restless", *few, *own)
    assert ended.returncode == 0, ended.stderr
    found = {path.relative_to(project).parts[0] for path in project.rglob("*")}
    assert {"here.db", ".tuner", "elsewhere"} <= found
    assert list((project / "elsewhere").iterdir()) == []
    [log] = (project / ".tuner").rglob("worker-0.log")
    said = log.read_text()
    assert "environment" in said
    assert "'PGPASSWORD': '***'" in said
    assert "\\u001b]0;owned\\u0007\n" in said
    assert "hunter2hunter2" not in said
    assert not set(map(chr, range(32))) & set(said) - {"\n", "\t"}


def test_what_is_made_is_this_users_alone(
    tuner: Tuner, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.umask(0o022)
    try:
        few = ("--set", "budget.trials=1", "--set", "budget.epochs=1", "--device", "cpu")
        assert tuner("run", "studies/parabola.toml", *few).returncode == 0
        database = open_database("sqlite:///tuner.db")
        Studies(database).list()
        modes = {
            path.name: stat.S_IMODE(path.stat().st_mode)
            for path in (*project.glob("tuner.db*"), *project.glob(".tuner"))
        }
        deeper = [path for path in (project / ".tuner").rglob("*") if path.is_dir()]
        database.close()
    finally:
        os.umask(before)
    expected = {"tuner.db": 0o600, "tuner.db-wal": 0o600, "tuner.db-shm": 0o600, ".tuner": 0o700}
    assert modes == expected
    assert {stat.S_IMODE(path.stat().st_mode) for path in deeper} == {0o700}


def without_power(*arguments: str) -> list[str]:
    """Returns a command whose process minds the rights of files, root's too."""
    if os.getuid():
        return list(arguments)
    if subprocess.run(["which", "setpriv"], capture_output=True, check=False).returncode:
        pytest.skip("root may write everywhere")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *arguments]


@pytest.mark.parametrize("folder_too", [False, True])
def test_database_that_cannot_be_written_can_be_viewed(
    tmp_path: Path, make_spec: MakeSpec, folder_too: bool
) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    url = f"sqlite:///{folder / 'a b#.db'}"
    database = open_database(url, create=True)
    Studies(database).create(make_spec())
    database.close()
    for path in (*folder.iterdir(), *([folder] if folder_too else [])):
        path.chmod(0o555 if path == folder else 0o444)
    command = without_power(sys.executable, "-m", "tuner")
    try:
        for arguments, code, part in (
            (("study", "list"), 0, "small"),
            (("study", "report", "small"), 0, "No trial has finished yet"),
            (("study", "pause", "small"), 1, "the database is read-only"),
        ):
            ended = subprocess.run(
                [*command, *arguments, "--storage", url],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
            )
            assert ended.returncode == code, ended.stderr
            assert part in ended.stdout + ended.stderr
    finally:
        folder.chmod(0o755)
