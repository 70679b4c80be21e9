"""A database and its copy hold the same studies: neither touches the files of the other."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from tests.conftest import MakeSpec, run_on
from tests.store.test_roles import apply_roles
from tuner.cli.main import cli
from tuner.service.folders import study_folder
from tuner.service.ownership import MARK, claim_folder, find_folder
from tuner.service.worker.checkpoints import Checkpoints, sweep
from tuner.store import Database, Lease, Studies, StudyHandle, open_database
from tuner.store.leases.rows import new_token

Open = Callable[[Path], tuple[Database, StudyHandle]]
DAY_S = 86400


@pytest.fixture
def opening() -> Iterator[Open]:
    """Returns what opens a file that holds the study."""
    opened = []

    def open_file(path: Path) -> tuple[Database, StudyHandle]:
        database = open_database(f"sqlite:///{path}")
        opened.append(database)
        return database, Studies(database).find("small")

    yield open_file
    for database in opened:
        database.close()


@pytest.fixture(params=["beside", "home"])
def original(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    make_spec: MakeSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """Returns a database whose study has a checkpoint, beside it or in a home of its own."""
    monkeypatch.delenv("TUNER_HOME", raising=False)
    if request.param == "home":
        monkeypatch.setenv("TUNER_HOME", str(tmp_path / "home"))
    path = tmp_path / "project" / "tuner.db"
    path.parent.mkdir()
    database = open_database(f"sqlite:///{path}", create=True)
    study = Studies(database).create(make_spec())
    keep(claim_folder(database, study))
    database.close()
    return path


def keep(folder: Path) -> Path:
    """Puts a checkpoint into a folder that no lease knows of: its holder came after the copy."""
    path = folder / "checkpoints" / f"trial-0-{new_token()}.pt"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"hours of work")
    return path


def copy(path: Path, name: str) -> Path:
    there = path.with_name(name)
    shutil.copy(path, there)
    return there


def test_copy_has_a_folder_of_its_own(original: Path, opening: Open) -> None:
    database, study = opening(original)
    first = study_folder(database.url, study)
    other = opening(copy(original, "copy.db"))
    assert find_folder(*other) == (first.with_name(f"{first.name}-2"), False)
    own = claim_folder(*other)
    third = claim_folder(*opening(copy(original, "third.db")))
    assert len({first, own, third}) == 3
    assert claim_folder(*other) == own
    assert claim_folder(database, study) == first


@pytest.mark.parametrize("command", [("repair",), ("delete", "--yes")])
def test_nothing_done_to_a_copy_touches_the_files_of_the_original(
    original: Path, opening: Open, command: tuple[str, ...]
) -> None:
    folder = claim_folder(*opening(original))
    before = sorted(folder.rglob("*"))
    url = f"sqlite:///{copy(original, 'copy.db')}"
    done = CliRunner().invoke(cli, ["study", *command, "small", "--storage", url])
    assert done.exit_code == 0, done.output
    assert sorted(folder.rglob("*")) == before


def test_original_that_is_deleted_leaves_the_files_of_its_copy(
    original: Path, opening: Open
) -> None:
    own = keep(claim_folder(*opening(copy(original, "copy.db"))))
    first = claim_folder(*opening(original))
    url = f"sqlite:///{original}"
    done = CliRunner().invoke(cli, ["study", "delete", "small", "--yes", "--storage", url])
    assert done.exit_code == 0, done.output
    assert (first.exists(), own.exists()) == (False, True)


def test_copy_goes_on_from_the_checkpoints_of_the_original_and_leaves_them_there(
    original: Path, opening: Open
) -> None:
    database, study = opening(original)
    former = Lease(0, new_token(), 1)
    Checkpoints(claim_folder(database, study), study.uuid, former).save({"step": 7})
    _, same = other = opening(copy(original, "copy.db"))
    lease = Lease(0, new_token(), 1, checkpoint=former.token)
    checkpoints = Checkpoints(claim_folder(*other), same.uuid, lease)
    state = checkpoints.load()
    assert state is not None
    assert state["step"] == 7
    checkpoints.save(state)
    checkpoints.drop_former()
    checkpoints.clear()
    again = Checkpoints(claim_folder(database, study), study.uuid, lease).load()
    assert again is not None


def test_database_that_was_moved_takes_its_folder_along(original: Path, opening: Open) -> None:
    folder = claim_folder(*opening(original))
    moved = original.with_name("moved.db")
    opening(original)[0].close()
    original.rename(moved)
    assert claim_folder(*opening(moved)) == folder
    assert (folder / MARK).read_text().endswith("moved.db\n")


def test_backup_put_back_in_its_place_has_its_folder(original: Path, opening: Open) -> None:
    folder = claim_folder(*opening(original))
    backup = copy(original, "backup.db")
    original.unlink()
    backup.rename(original)
    assert find_folder(*opening(original)) == (folder, True)


def test_place_that_another_database_has_taken_is_nobodys(
    original: Path, opening: Open, make_spec: MakeSpec
) -> None:
    folder = claim_folder(*opening(original))
    moved = original.with_name("moved.db")
    original.rename(moved)
    another = open_database(f"sqlite:///{original}", create=True)
    Studies(another).create(make_spec())
    another.close()
    assert claim_folder(*opening(moved)) == folder


def test_project_copied_as_a_whole_is_on_its_own(original: Path, opening: Open) -> None:
    if os.environ.get("TUNER_HOME"):
        return
    claim_folder(*opening(original))
    project = shutil.copytree(original.parent, original.parent.with_name("twin"))
    folder, ours = find_folder(*opening(project / "tuner.db"))
    assert ours
    assert folder.parent.parent == project


def test_what_is_young_and_unknown_outlasts_the_taking_of_a_folder(
    original: Path, opening: Open
) -> None:
    database, study = opening(original)
    folder = claim_folder(database, study)
    (folder / MARK).unlink()  # as an older version has left it
    young, old = keep(folder), keep(folder)
    now = time.time()
    os.utime(young, (now - 10, now - 10))
    os.utime(old, (now - DAY_S - 10, now - DAY_S - 10))
    url = f"sqlite:///{copy(original, 'copy.db')}"
    CliRunner().invoke(cli, ["study", "repair", "small", "--storage", url])
    assert (young.exists(), old.exists()) == (True, False)
    later = keep(folder)
    os.utime(later, (now + 10, now + 10))
    sweep(folder, *opening(original))
    assert (young.exists(), later.exists()) == (True, False)


def test_folder_that_nobody_has_claimed_is_not_deleted_but_told(
    original: Path, opening: Open
) -> None:
    folder = claim_folder(*opening(original))
    (folder / MARK).unlink()
    url = f"sqlite:///{original}"
    done = CliRunner().invoke(cli, ["study", "delete", "small", "--yes", "--storage", url])
    assert f"{folder} stays" in done.output
    assert folder.is_dir()


def test_damaged_file_in_its_former_place_counts_as_there(original: Path, opening: Open) -> None:
    folder = claim_folder(*opening(original))
    twin = copy(original, "copy.db")
    content = original.read_bytes()
    original.write_bytes(content[:100] + b"?" * 4000 + content[4100:])
    assert claim_folder(*opening(twin)) != folder


class TestPostgreSQL:
    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url

    def test_copy_from_a_template_has_a_folder_of_its_own_until_the_original_is_gone(
        self,
        postgres_server: str,
        database: Database,
        study: StudyHandle,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("TUNER_HOME", str(tmp_path))
        first = claim_folder(database, study)
        database.close()
        url = sa.make_url(database.url)
        twin, renamed = f"{url.database}_twin", f"{url.database}_renamed"
        run_on(postgres_server, f"CREATE DATABASE {twin} TEMPLATE {url.database}")
        other = open_database(url.set(database=twin).render_as_string(hide_password=False))
        own = claim_folder(other, study)
        assert own != first
        run_on(postgres_server, f"ALTER DATABASE {url.database} RENAME TO {renamed}")
        same = open_database(url.set(database=renamed).render_as_string(hide_password=False))
        assert find_folder(same, study) == (first, True)
        same.close()
        (own / MARK).unlink()
        own.rmdir()
        run_on(postgres_server, f"DROP DATABASE {renamed} WITH (FORCE)")
        assert claim_folder(other, study) == first
        other.close()
        run_on(postgres_server, f"ALTER DATABASE {twin} RENAME TO {url.database}")

    def test_worker_of_its_role_claims_as_the_owner_does(
        self,
        database: Database,
        study: StudyHandle,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("TUNER_HOME", str(tmp_path))
        apply_roles(database.url)
        url = sa.make_url(database.url).set(username="tuner_worker")
        worker = open_database(url.render_as_string(hide_password=False))
        folder = claim_folder(worker, study)
        worker.close()
        assert find_folder(database, study) == (folder, True)
