from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import pytest

from tuner.errors import StorageError
from tuner.service.liveness import WorkerLock, is_dead

_HOLD = """
import sys, time
from tuner.service.liveness import WorkerLock
with WorkerLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_worker_of_this_process_lives() -> None:
    worker = uuid.uuid4().hex
    with WorkerLock(worker):
        assert not is_dead(worker)


def test_nothing_is_known_of_a_worker_that_left_properly_or_never_was_here() -> None:
    worker = uuid.uuid4().hex
    assert not is_dead(worker)
    with WorkerLock(worker):
        pass
    assert not is_dead(worker)


@pytest.mark.parametrize("how", ["error", "work left behind"])
def test_worker_that_ended_with_a_trial_in_hand_is_known_to_be_dead(how: str) -> None:
    worker = uuid.uuid4().hex
    with contextlib.suppress(StorageError), WorkerLock(worker) as worker_lock:
        if how == "error":
            raise StorageError("the disk is full")
        worker_lock.keep_file()
    assert is_dead(worker)


def test_killed_worker_is_known_to_be_dead() -> None:
    worker = uuid.uuid4().hex
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, worker], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert not is_dead(worker)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert is_dead(worker)


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Path]:
    """Returns the folders where locks may lie, none of them there yet but the login session's."""
    session = tmp_path / "session"
    session.mkdir(mode=0o700)
    for variable in ("XDG_CACHE_HOME", "TMPDIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
        (tmp_path / variable).mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(session))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "TMPDIR"))
    return {
        "session": session / "tuner",
        "cache": tmp_path / "XDG_CACHE_HOME" / "tuner" / "workers",
        "temporary": tmp_path / "TMPDIR" / f"tuner-{os.getuid()}",
    }


def test_lock_lies_where_the_session_is_and_is_found_without_it(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, other = uuid.uuid4().hex, uuid.uuid4().hex
    with WorkerLock(worker) as worker_lock:
        worker_lock.keep_file()
        assert [path.name for path in places["session"].iterdir()] == [f"{worker}.lock"]
    assert places["session"].stat().st_mode & 0o777 == 0o700
    session = os.environ["XDG_RUNTIME_DIR"]
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nowhere")
    with WorkerLock(other) as worker_lock:
        worker_lock.keep_file()
        assert list(places["cache"].iterdir())
    monkeypatch.setenv("XDG_RUNTIME_DIR", session)
    assert is_dead(worker)
    assert is_dead(other)


@pytest.mark.parametrize("how", ["writable by all", "a link", "another user's"])
def test_folder_that_others_may_have_planted_holds_no_lock_and_tells_nothing(
    places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    worker = uuid.uuid4().hex
    planted = tmp_path / "planted"
    for place in (planted, *([] if how == "a link" else places.values())):
        place.mkdir(parents=True)
        (place / f"{worker}.lock").write_text("")
    for place in places.values():
        if how == "a link":
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(planted)
        elif how == "writable by all":
            place.chmod(0o777)
    if how == "another user's":
        uid = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    assert not is_dead(worker)
    with pytest.raises(StorageError, match="XDG_RUNTIME_DIR"):
        WorkerLock(worker)
