from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tuner.service.doctor.devices import (
    examine_compiler,
    examine_devices,
    read_gpus,
    try_compiling,
)
from tuner.service.doctor.finding import Level

_LINE = "0, NVIDIA H200, 570.1, 143771, {used}, {mode}, {mig}"


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a program in the place of the driver's, which the test writes."""
    program = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return program


def say(program: Path, line: str, *, knows_mig: bool = True) -> None:
    refusal = "" if knows_mig else 'case "$*" in *mig.mode*) exit 2;; esac\n'
    program.write_text(f"#!/bin/sh\n{refusal}echo '{line}'\n")
    program.chmod(0o700)


def test_a_gpu_is_told_with_its_memory(driver: Path) -> None:
    say(driver, _LINE.format(used=771, mode="Default", mig="Disabled"))
    [gpu] = read_gpus()
    assert (gpu["name"], gpu["driver_version"]) == ("NVIDIA H200", "570.1")
    told = examine_devices({})
    assert any("143,000 of 143,771 MiB free" in one.text for one in told)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"used": 143000}, "others hold its memory"),
        ({"mode": "Exclusive_Process"}, "one process at a time"),
        ({"mig": "Enabled"}, "MIG is on"),
    ],
)
def test_what_keeps_workers_from_a_gpu_is_a_warning(
    driver: Path, given: dict[str, object], said: str
) -> None:
    say(driver, _LINE.format(**{"used": 0, "mode": "Default", "mig": "Disabled"} | given))
    [found] = [one for one in examine_devices({}) if said in one.text]
    assert found.level is Level.WARNING
    assert "nvidia-smi" in found.remedy


def test_an_older_driver_is_asked_without_mig(driver: Path) -> None:
    say(driver, "0, Tesla K80, 470.1, 11441, 0, Default", knows_mig=False)
    [gpu] = read_gpus()
    assert gpu["name"] == "Tesla K80"
    assert "mig.mode.current" not in gpu


def test_a_driver_that_fails_tells_nothing(driver: Path) -> None:
    driver.write_text("#!/bin/sh\nexit 9\n")
    driver.chmod(0o700)
    assert read_gpus() == []


def test_gpus_that_torch_cannot_use_are_told(driver: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("torch uses the GPUs here")
    say(driver, _LINE.format(used=0, mode="Default", mig="Disabled"))
    if torch.version.cuda is None:
        last = examine_devices({})[-1]
        assert last.level is Level.PROBLEM
        assert "built without CUDA" in last.text


def test_a_compiler_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [named] = examine_compiler({"CXX": sys.executable})
    assert (named.level, sys.executable in named.text) == (Level.OK, True)
    [wrong] = examine_compiler({"CXX": "no-such-compiler"})
    assert (wrong.level, "is no program" in wrong.text) == (Level.WARNING, True)
    monkeypatch.setenv("PATH", str(tmp_path))
    [missing] = examine_compiler({})
    assert (missing.level, missing.remedy) == (
        Level.WARNING,
        "apt-get install g++, or export CXX=…",
    )


@pytest.mark.slow
def test_compiling_is_tried_and_a_compiler_that_fails_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CXX", "/bin/false")
    [broken] = try_compiling()
    assert broken.level is Level.WARNING
    assert "cannot compile" in broken.text
