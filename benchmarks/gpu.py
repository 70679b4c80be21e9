"""All that is to be seen of a GPU, in one go of under eight minutes: ``make gpu``.

From a checkout, with Python 3.11 to 3.13 and a torch from 2.9 to 2.13 that sees the device; other
wheels that are missing are installed into the output folder (``--list-wheels`` names them,
``--wheels FOLDER`` takes them from a folder). It runs all tests marked ``cuda``, then
``benchmarks.fused`` and ``benchmarks.optimizers``, each part in a process and under a time limit
of its own. ``gpu.json`` and ``gpu.md`` are written anew after each part, so that what has been
found is kept whatever happens to the next. On data that is not below ``TUNER_DATA`` it trains on
noise, and nothing is downloaded but wheels.

    scripts/check-gpu
    scripts/check-gpu --device cpu --quick      # a rehearsal without a GPU

It ends with 0 if all parts passed, or if there is no GPU; with 1 if one did not; with 2 if it
cannot begin.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu_table import to_markdown
from benchmarks.gpu_wheels import TORCH, install, missing, numbers, requirements

ROOT = Path(__file__).parents[1]

WHOLE_S = 470.0
"""Seconds for everything: later parts get what is left."""

_LEAST_S = 5.0
"""Seconds below which nothing is begun."""

_PROBE = """
import json, platform, sys, torch
name = sys.argv[1]
there = name == "cpu" or torch.cuda.is_available()
found = {"there": there, "torch": torch.__version__, "cuda": torch.version.cuda,
         "python": platform.python_version(), "device": "cpu"}
if there and name != "cpu":
    own = torch.cuda.get_device_properties(name)
    found |= {"device": own.name, "memory_gib": round(own.total_memory / 2**30, 1),
              "capability": f"{own.major}.{own.minor}", "devices": torch.cuda.device_count(),
              "cudnn": torch.backends.cudnn.version()}
try:
    import triton
    found["triton"] = triton.__version__
except ImportError:
    found["triton"] = None
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Part:
    """Something to run by itself.

    Attributes:
        name: What it is called.
        arguments: Of Python.
        limit_s: Seconds it may take.
        read: Makes a result of what it printed.
    """

    name: str
    arguments: tuple[str, ...]
    limit_s: float
    read: Callable[[str], dict[str, Any]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the check; returns its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu for a rehearsal")
    parser.add_argument("--quick", action="store_true", help="a little of it, as a rehearsal")
    parser.add_argument("--output", type=Path, default=ROOT / "gpu", help="folder of the results")
    parser.add_argument("--wheels", type=Path, help="folder to install missing wheels from")
    parser.add_argument("--list-wheels", action="store_true", help="say which, and do nothing")
    asked = parser.parse_args(arguments)
    if asked.list_wheels:
        print("\n".join(requirements()))
        return 0
    try:
        return Check(asked.device, asked.output.resolve(), asked.wheels, quick=asked.quick).run()
    except CannotBeginError as error:
        print(error, file=sys.stderr)
        return 2


class CannotBeginError(Exception):
    """There is no torch, or a wheel cannot be had."""


class Check:
    """A run of all parts on a device.

    Args:
        device: As torch calls it.
        output: The folder of the results.
        wheels: A folder with wheels, or None for the package index.
        quick: Whether a little of each part will do.
    """

    def __init__(self, device: str, output: Path, wheels: Path | None, *, quick: bool) -> None:
        self._device, self._output, self._wheels = device, output, wheels
        self._quick = quick
        self._deadline = time.monotonic() + WHOLE_S
        self._found: dict[str, Any] = {"machine": {}, "quick": quick, "parts": []}

    def run(self) -> int:
        """Runs the parts; returns the exit code."""
        machine = self._probe()
        if not machine.pop("there"):
            print(f"No CUDA device is here that torch {machine['torch']} sees: nothing to check.")
            return 0
        self._output.mkdir(parents=True, exist_ok=True)
        self._equip()
        self._found["machine"] = machine
        for part in parts(self._device, quick=self._quick):
            print(f"{part.name} …", flush=True)
            row = self._run(part)
            print(f"{part.name}: {row['status']} in {row['seconds']:.0f} s {row['note']}".rstrip())
            self._found["parts"].append(row)
            self._write()
        print(f"Wrote {self._output / 'gpu.json'} and gpu.md")
        return int(any(row["status"] != "passed" for row in self._found["parts"]))

    def _left_s(self) -> float:
        return self._deadline - time.monotonic()

    def _probe(self) -> dict[str, Any]:
        """Returns what machine this is.

        Raises:
            CannotBeginError: If there is no torch that can be checked.
        """
        low, high = (".".join(map(str, version)) for version in TORCH)
        remedy = f"install one from {low} to {high} that sees the device first."
        asked = subprocess.run(
            [sys.executable, "-c", _PROBE, self._device],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        if asked.returncode:
            reason = (asked.stderr.strip().splitlines() or ["no reason"])[-1]
            raise CannotBeginError(f"torch cannot be asked for {self._device} ({reason}): {remedy}")
        machine: dict[str, Any] = json.loads(asked.stdout.splitlines()[-1])
        if not TORCH[0] <= numbers(machine["torch"])[:2] <= TORCH[1]:
            raise CannotBeginError(f"torch {machine['torch']} is not checked: {remedy}")
        return machine

    def _equip(self) -> None:
        """Installs the wheels that are missing.

        Raises:
            CannotBeginError: If they cannot be had.
        """
        wanted = missing()
        if not wanted:
            return
        print(f"Installing {len(wanted)} wheels below {self._output}", flush=True)
        try:
            install(wanted, self._site, self._wheels, self._left_s() / 4)
        except subprocess.SubprocessError as error:
            raise CannotBeginError(
                f"{error}\nWhere there is no network, put what --list-wheels names into a folder, "
                "and name that: --wheels FOLDER."
            ) from None

    @property
    def _site(self) -> Path:
        return self._output / "site"

    def _environment(self) -> dict[str, str]:
        own = {key: value for key, value in os.environ.items() if not key.startswith("TUNER_")}
        own |= {key: os.environ[key] for key in ("TUNER_DATA",) if key in os.environ}
        path = [str(self._site), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        nowhere = "http://127.0.0.1:1"  # data that is not here is not waited for
        return own | {
            "PYTHONPATH": os.pathsep.join(path),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "300",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "HTTP_PROXY": nowhere,
            "HTTPS_PROXY": nowhere,
        }

    def _run(self, part: Part) -> dict[str, Any]:
        """Returns how a part went."""
        limit_s = min(part.limit_s, self._left_s())
        row: dict[str, Any] = {"name": part.name, "limit_s": part.limit_s, "result": {}}
        if limit_s < _LEAST_S:
            return row | {"status": "not run", "seconds": 0.0, "note": "no time was left"}
        began = time.monotonic()
        log = self._output / f"{part.name.replace(' ', '-')}.log"
        code = self._train(part, log, limit_s)
        row["seconds"] = round(time.monotonic() - began, 1)
        printed = log.read_text(encoding="utf-8", errors="replace")
        try:
            row["result"] = part.read(printed)
        except (ValueError, IndexError):
            code = 1 if code == 0 else code
        if code is None:
            return row | {"status": "timed out", "note": f"after {limit_s:.0f} s: see {log.name}"}
        if code:
            return row | {"status": "failed", "note": f"exit code {code}: see {log.name}"}
        return row | {"status": "passed", "note": ""}

    def _train(self, part: Part, log: Path, limit_s: float) -> int | None:
        """Runs a part with whatever it starts; returns its exit code, None if it took too long."""
        with log.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(
                [sys.executable, *part.arguments],
                cwd=ROOT,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                return process.wait(limit_s)
            except subprocess.TimeoutExpired:
                return None
            finally:
                # Whatever it has left behind, such as workers, ends with it.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _write(self) -> None:
        for name, text in (
            ("gpu.json", json.dumps(self._found, indent=1)),
            ("gpu.md", to_markdown(self._found)),
        ):
            (self._output / name).write_text(text + "\n", encoding="utf-8")


def parts(device: str, *, quick: bool) -> list[Part]:
    """Returns what is run, in this order."""
    pytest = ("-m", "pytest", "-vv", "-p", "pytest_timeout", "--tb", "short")
    # A rehearsal runs what these tests do elsewhere.
    chosen = ("-m", "not cuda and not slow", "-k", "cpu") if device == "cpu" else ("-m", "cuda")
    modules = cuda_tests()
    found = [Part("tests", (*pytest, *chosen, *modules), 170, read_tests)]
    if quick:
        modules = [module for module in modules if module.endswith("test_on_devices.py")]
        few = ("--lanes", "2", "--steps", "10", "--rounds", "1", "--processes", "1", "--eager")
        return [
            Part("tests", (*pytest, *chosen, *modules), 170, read_tests),
            Part("parabola", (*_fused("parabola", device), *few), 240, read_json),
            Part(
                "optimizers",
                (*_optimizers(device), "--rounds", "1", "--steps", "1"),
                150,
                read_json,
            ),
        ]
    for name, lanes, steps, limit_s in (
        ("parabola", 64, 100, 50),
        ("digits", 64, 100, 50),
        ("mnist", 32, 100, 60),
        ("cifar10", 8, 20, 60),
    ):
        size = ("--lanes", str(lanes), "--steps", str(steps), "--rounds", "2")
        found.append(Part(name, (*_fused(name, device), *size), limit_s, read_json))
    return [*found, Part("optimizers", _optimizers(device), 45, read_json)]


def _fused(workload: str, device: str) -> tuple[str, ...]:
    start = ("-m", "benchmarks.fused", "--json", "--processes", "2")
    return (*start, "--workload", workload, "--device", device)


def _optimizers(device: str) -> tuple[str, ...]:
    return ("-m", "benchmarks.optimizers", "--json", "--device", device)


def cuda_tests() -> list[str]:
    """Returns the modules that hold tests marked ``cuda``."""
    marks = re.compile(r"mark\.cuda|^@ON_DEVICES", re.MULTILINE)
    modules = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(module.relative_to(ROOT)) for module in modules if marks.search(module.read_text())]


def read_tests(printed: str) -> dict[str, Any]:
    r"""Returns how many tests passed, and which did not.

    >>> read_tests("tests/a.py::test_b[c d] PASSED [ 50%]\ntests/a.py::test_e SKIPPED (why)")
    {'counts': {'passed': 1, 'skipped': 1}, 'others': {'tests/a.py::test_e': 'SKIPPED (why)'}}

    Raises:
        ValueError: If there are none.
    """
    line = re.compile(r"^(tests/\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED)(.*?)(?: +\[ *\d+%\])?$")
    found = [match.groups() for match in map(line.match, printed.splitlines()) if match]
    if not found:
        raise ValueError("no test has run")
    ends = {test: (status, more) for test, status, more in found}
    return {
        "counts": dict(Counter(status.lower() for status, _ in ends.values())),
        "others": {t: (s + more).rstrip() for t, (s, more) in ends.items() if s != "PASSED"},
    }


def read_json(printed: str) -> dict[str, Any]:
    """Returns the last line that is an object of JSON.

    Raises:
        IndexError: If there is none.
    """
    line = [line for line in printed.splitlines() if line.startswith("{")][-1]
    found: dict[str, Any] = json.loads(line)
    return found


if __name__ == "__main__":
    sys.exit(main())
