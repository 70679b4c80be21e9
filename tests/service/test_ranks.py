"""Ranks of one distributed training are refused, since each would be a worker of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch.distributed

from tuner.errors import SpecError
from tuner.service.ranks import refuse_ranks

Tuner = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("size", ["", "1", "0", "many"])
def test_a_process_alone_is_let_through(monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", size)
    refuse_ranks()


def test_a_rank_by_its_environment_is_refused_with_reason_and_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SpecError, match="WORLD_SIZE=2") as caught:
        refuse_ranks()
    for part in ("gradients of different trials", "tuner run", "workers launch", "unset WORLD"):
        assert part in str(caught.value)


def test_a_process_group_of_one_is_let_through(tmp_path: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        refuse_ranks()
    finally:
        torch.distributed.destroy_process_group()


_RANK = """
import datetime, sys
import torch.distributed
from tuner.service.ranks import refuse_ranks
store = torch.distributed.FileStore(sys.argv[1], 2)
torch.distributed.init_process_group(
    "gloo", store=store, rank=int(sys.argv[2]), world_size=2, timeout=datetime.timedelta(seconds=60)
)
try:
    refuse_ranks()
except ValueError as error:
    print(error)
"""


def test_a_process_group_of_two_is_refused(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", _RANK, str(tmp_path / "store")]
    ranks = [
        subprocess.Popen([*arguments, str(rank)], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    for rank in ranks:
        said, _ = rank.communicate(timeout=120)
        assert "a process group of 2 ranks" in said


@pytest.mark.parametrize(
    "command",
    [
        ("run", "studies/parabola.toml"),
        ("study", "run", "parabola"),
        ("worker", "start", "parabola"),
        ("workers", "launch", "parabola"),
    ],
    ids=" ".join,
)
def test_what_trains_is_refused_to_a_rank_before_anything_is_created(
    tuner: Tuner, project: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    ended = tuner(*command)
    assert ended.returncode == 2
    assert "one of 2 ranks" in ended.stderr
    assert not (project / "tuner.db").exists()


@pytest.mark.slow
def test_torchrun_trains_nothing(project: Path) -> None:
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
            *("-m", "tuner", "run", "studies/parabola.toml"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode != 0
    assert "one of 2 ranks" in ended.stderr
    assert not (project / "tuner.db").exists()
