from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._inductor.runtime.cache_dir_utils import default_cache_dir
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from tuner.errors import StorageError
from tuner.fused.compile_costs import CompileCosts, check_cache
from tuner.fused.compiler import Compiler


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns where nothing has been compiled yet."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def trace(times: int) -> GraphModule:
    def multiply(x: Tensor) -> Tensor:
        for _ in range(times):
            x = x.sin()
        return x

    return make_fx(multiply)(torch.ones(3, 2))


def test_code_is_paid_for_once_all_of_it_is_noted_for_as_many_threads() -> None:
    assert not costs_of(trace(1)).are_paid
    costs_of(trace(1)).note()
    assert costs_of(trace(1)).are_paid
    assert not costs_of(trace(1), trace(2)).are_paid
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert not costs_of(trace(1)).are_paid
    finally:
        torch.set_num_threads(threads)


def costs_of(*graphs: GraphModule, like: Tensor | None = None) -> CompileCosts:
    costs = CompileCosts()
    for graph in graphs:
        costs.add(graph, [torch.ones(3, 2) if like is None else like], [0])
    return costs


@pytest.fixture
def usual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the folder that Inductor takes if nobody names one."""
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return Path(default_cache_dir())


def test_cache_among_temporary_files_is_made_for_this_user_alone(usual: Path) -> None:
    assert check_cache() == usual
    assert usual.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("how", ["a link", "writable by all", "another user's"])
def test_nothing_is_run_from_a_cache_that_others_may_have_planted(
    usual: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    planted = tmp_path / "planted"
    planted.mkdir()
    if how == "a link":
        usual.symlink_to(planted)
    else:
        usual.mkdir()
    if how == "writable by all":
        usual.chmod(0o777)
    elif how == "another user's":
        uid = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    for _ in range(2):
        with pytest.raises(StorageError, match="set TORCHINDUCTOR_CACHE_DIR"):
            check_cache()
    compiler = Compiler(enabled=True)
    tensor = torch.ones(3, 2)
    with pytest.warns(UserWarning, match="without compiling, which failed: others may write"):
        made = compiler(torch.sin, [tensor], [0])
    assert torch.equal(made(tensor), tensor.sin())
    costs_of(trace(1)).note()
    assert list(planted.iterdir()) == []


def test_larger_graphs_take_longer() -> None:
    small, large, both = (costs_of(*g) for g in ([trace(1)], [trace(60)], [trace(1), trace(60)]))
    assert small.seconds < large.seconds < both.seconds < small.seconds + large.seconds


def test_what_has_been_compiled_takes_as_long_as_nothing() -> None:
    first = costs_of(trace(1), trace(60))
    before = first.seconds
    first.note()
    again = costs_of(trace(1), trace(60))
    assert again.seconds == first.seconds == CompileCosts().seconds < before


def test_only_the_first_on_a_machine_compiles_headers() -> None:
    before = costs_of(trace(2)).seconds
    costs_of(trace(1)).note()
    assert costs_of(trace(2)).seconds < before


def test_any_number_of_lanes_is_the_same_and_other_tensors_are_not() -> None:
    costs_of(trace(5)).note()
    known = CompileCosts().seconds
    assert costs_of(trace(5), like=torch.ones(7, 2)).seconds == known
    assert costs_of(trace(5), like=torch.ones(3, 4)).seconds > known
    assert costs_of(trace(5), like=torch.ones(3, 2, dtype=torch.float64)).seconds > known


def test_compiled_steps_are_quicker_and_most_so_where_little_is_computed() -> None:
    costs = costs_of(trace(100))
    steps_s = (0.0005, 0.002, 0.2)
    gains = [traced_s / costs.step_s(traced_s) for traced_s in steps_s]
    assert gains == sorted(gains, reverse=True)
    assert min(gains) > 2


def test_where_nothing_can_be_noted_everything_takes_longer(folder: Path) -> None:
    folder.write_text("a file in its place")
    costs = costs_of(trace(5))
    before = costs.seconds
    costs.note()
    assert costs.seconds == before
