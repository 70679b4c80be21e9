from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tuner.service.doctor import machine
from tuner.service.doctor.finding import Level
from tuner.service.doctor.machine import (
    examine_clock,
    examine_cores,
    examine_folders,
    examine_shared_memory,
    read_quota,
)


@pytest.mark.parametrize(
    ("threads", "quota", "level", "remedy"),
    [
        (None, None, Level.OK, ""),
        ("4", None, Level.OK, ""),
        ("9", None, Level.WARNING, "export OMP_NUM_THREADS=8"),
        (None, 2.0, Level.WARNING, "export OMP_NUM_THREADS=2"),
        ("2", 2.0, Level.OK, ""),
        ("4", 2.0, Level.WARNING, "export OMP_NUM_THREADS=2"),
        (None, 0.4, Level.WARNING, "export OMP_NUM_THREADS=1"),
        ("many", None, Level.PROBLEM, "unset OMP_NUM_THREADS"),
        ("0", None, Level.PROBLEM, "unset OMP_NUM_THREADS"),
    ],
)
def test_threads_are_compared_with_cores(
    threads: str | None, quota: float | None, level: Level, remedy: str
) -> None:
    environment = {} if threads is None else {"OMP_NUM_THREADS": threads}
    [found] = examine_cores(environment, 8, quota)
    assert (found.level, found.remedy) == (level, remedy)


@pytest.mark.parametrize(
    ("text", "quota"), [("max 100000\n", None), ("150000 100000\n", 1.5), ("", None)]
)
def test_a_container_s_share_of_cores_is_read(
    tmp_path: Path, text: str, quota: float | None
) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert read_quota(tmp_path / "cpu.max") == quota
    assert read_quota(tmp_path / "nothing") is None


def test_the_clock_is_told() -> None:
    [found] = examine_clock()
    assert found.level is Level.OK
    assert "UTC" in found.text


def test_shared_memory_without_room_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert examine_shared_memory(tmp_path / "nothing") == []
    monkeypatch.setattr(machine, "_LEAST_SHARED", 2**62)
    [found] = examine_shared_memory(tmp_path)
    assert found.level is Level.WARNING
    assert "num_workers=0" in found.remedy


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("TUNER_HOME", "TUNER_DATA", "TORCHINDUCTOR_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    return tmp_path


def test_folders_are_looked_at_and_not_made(home: Path) -> None:
    before = sorted(home.rglob("*"))
    found = examine_folders(None)
    assert {one.level for one in found} == {Level.OK}
    assert all("not made yet" in one.text for one in found)
    assert sorted(home.rglob("*")) == before


def test_data_sets_are_named(home: Path) -> None:
    (home / "TUNER_DATA" / "mnist").mkdir(parents=True)
    assert any("in it: mnist" in one.text for one in examine_folders(None))


def test_a_file_in_a_folder_s_place_is_a_problem(home: Path) -> None:
    (home / "TUNER_HOME").write_text("")
    first = examine_folders(None)[0]
    assert (first.level, "is no folder" in first.text) == (Level.PROBLEM, True)
    assert "export TUNER_HOME=" in first.remedy


def test_folder_that_others_may_write_to_is_a_warning(home: Path) -> None:
    (home / "TUNER_HOME").mkdir()
    (home / "TUNER_HOME").chmod(0o777)
    first = examine_folders(None)[0]
    assert (first.level, first.remedy) == (
        Level.WARNING,
        f"chmod go-w {home / 'TUNER_HOME'}",
    )


@pytest.mark.parametrize(("least", "full"), [(2**62, 0), (0, 2**62)])
def test_disks_without_room_are_told(
    home: Path, monkeypatch: pytest.MonkeyPatch, least: int, full: int
) -> None:
    monkeypatch.setattr(machine, "_LEAST_DISK", least)
    monkeypatch.setattr(machine, "_FULL_DISK", full)
    first = examine_folders(None)[0]
    assert first.level is (Level.PROBLEM if full else Level.WARNING)
    assert "tuner study clean" in first.remedy


@pytest.mark.parametrize(("mode", "level"), [(0o600, Level.OK), (0o644, Level.WARNING)])
def test_database_file_that_others_can_read_is_a_warning(
    home: Path, mode: int, level: Level
) -> None:
    path = home / "tuner.db"
    path.touch(mode=0o600)
    path.chmod(mode)
    last = examine_folders(path)[-1]
    assert (last.topic, last.level) == ("database file", level)
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root may write anywhere")
def test_folder_that_cannot_be_written_is_a_problem(home: Path) -> None:
    (home / "TUNER_HOME").mkdir(mode=0o500)
    assert examine_folders(None)[0].level is Level.PROBLEM
