from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import FORKS, ROOT
from tuner.training.forks import ending_forks

_AROUND = """
import os
import sys
from tuner.training.forks import ending_forks

print("before", flush=True)
try:
    with ending_forks():
        child = os.fork()
        if child == 0:
            {leave}
        _, status = os.waitpid(child, 0)
        print("status", os.waitstatus_to_exitcode(status))
finally:
    print("after", flush=True)
"""


@FORKS
@pytest.mark.parametrize(
    ("leave", "status", "words"),
    [
        ("raise SystemExit", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit(-1)", 255, ""),
        ("sys.exit('gone')", 1, "gone\n"),
        ("raise ValueError('no such file')", 1, "ValueError: no such file\n"),
        ("raise KeyboardInterrupt", 1, "KeyboardInterrupt\n"),
        ("raise GeneratorExit", 1, "GeneratorExit\n"),
        ("os.waitpid = lambda *_: (0, 0)", 0, ""),
        ("os._exit(9)", 9, ""),
    ],
)
def test_only_the_parent_gets_past_the_block(leave: str, status: int, words: str) -> None:
    code = _AROUND.format(leave=leave)
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    told = [line for line in ended.stdout.splitlines() if line != "status 0" or status == 0]
    assert told[0] == "before"
    assert told.count("after") == 1
    assert f"status {status}" in told
    assert ended.stderr.endswith(words)


def test_without_a_fork_an_error_passes() -> None:
    with pytest.raises(SystemExit), ending_forks():
        sys.exit(3)


_WORKLOAD = """
import os
import torch
from models.parabola import Parabola
from tuner.training.prepared_workload import PreparedWorkload
from tuner.training.forks import ending_forks

class Forking(Parabola):
    def {method}(self, *arguments):
        if os.fork():
            os.wait()
        else:
            os.write(1, b"child ")
        return super().{method}(*arguments)

with ending_forks():
    for _ in range(3):
        prepared = PreparedWorkload.prepare(Forking(), torch.device("cpu"), "float32")
        model = prepared.build_model(0)
        prepared.loss(model, prepared.batch(torch.arange(4)))
        prepared.evaluate(model)
os.write(1, b"parent")
"""


@FORKS
# A parabola's metrics are its loss.
@pytest.mark.parametrize(
    ("method", "calls"), [("data", 3), ("model", 3), ("loss", 6), ("metrics", 3)]
)
def test_a_fork_of_a_workloads_method_ends_before_the_next_forks(method: str, calls: int) -> None:
    code = _WORKLOAD.format(method=method)
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=ROOT,
    )
    assert ended.stdout == "child " * calls + "parent"
