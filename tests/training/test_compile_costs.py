from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from tuner.training.compile_costs import CompileCosts


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


def costs_of(*graphs: GraphModule, like: Tensor | None = None) -> CompileCosts:
    costs = CompileCosts()
    for graph in graphs:
        costs.add(graph, [torch.ones(3, 2) if like is None else like], [0])
    return costs


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
