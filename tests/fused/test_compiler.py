"""Functions of many lanes, traced with a few and called with any number of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch._inductor  # loaded whole, so that a part can be taken away
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.func import vmap
from torch.nn.functional import conv2d, cross_entropy

from tests.fused.cohorts import COMPILES
from tuner.fused.compiler import Compiler, Dims, Function, tracing_fault


def loss(weight: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """A lane's loss; of its rules, that of cross-entropy asks for the number of lanes."""
    return vmap(lambda w: cross_entropy(x @ w, y))(weight)


def convolve(weight: Tensor, x: Tensor) -> Tensor:
    """Lanes become groups of a convolution, for which Inductor needs a number."""
    return vmap(lambda w: conv2d(x, w).relu().mean())(weight)


def averaged(weight: Tensor) -> Tensor:
    """Depends on the number of lanes as no multiple of it."""
    return weight * (1 / len(weight))


def squared(weight: Tensor) -> Tensor:
    """Counts pairs of lanes."""
    return weight.new_zeros(len(weight) ** 2)


class Counting:
    """Does something else at every call."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, weight: Tensor) -> Tensor:
        self.calls += 1
        return weight * self.calls


BATCH = (torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2]))
DIMS = (0, None, None)


def weights(lanes: int, *shape: int) -> Tensor:
    return torch.randn(lanes, *shape, generator=torch.Generator().manual_seed(lanes))


traced = Compiler(enabled=False)(loss, [weights(5, 4, 3), *BATCH], DIMS)


@settings(max_examples=20)
@given(lanes=st.integers(1, 70))
def test_a_trace_serves_any_number_of_lanes(lanes: int) -> None:
    weight = weights(lanes, 4, 3)
    torch.testing.assert_close(traced(weight, *BATCH), loss(weight, *BATCH))


@pytest.mark.parametrize(
    ("function", "tensors", "dims"),
    [(averaged, [weights(5, 3)], [0]), (squared, [weights(5, 3)], [0])],
)
def test_a_function_that_depends_otherwise_on_their_number_is_left_as_it_is(
    function: Function, tensors: Sequence[Tensor], dims: Dims
) -> None:
    assert Compiler(enabled=False)(function, tensors, dims) is function


def test_a_function_that_changes_from_call_to_call_is_left_as_it_is() -> None:
    function = Counting()
    assert Compiler(enabled=True)(function, [weights(5, 3)], [0]) is function


def test_tracing_changes_nothing_that_a_function_writes_into() -> None:
    def grow(weight: Tensor) -> Tensor:
        return weight.add_(1)

    weight = weights(4, 3)
    before = weight.clone()
    made = Compiler(enabled=False)(grow, [weight], [0])
    assert torch.equal(weight, before)
    made(weight)
    assert torch.equal(weight, before + 1)


@COMPILES
@pytest.mark.parametrize(
    ("function", "tensors"),
    [
        (loss, [weights(5, 4, 3), *BATCH]),
        (convolve, [weights(5, 2, 3, 3, 3), torch.randn(2, 3, 8, 8)]),
    ],
    ids=["any number", "one number"],
)
def test_what_is_compiled_once_serves_any_number_of_lanes(
    function: Function, tensors: list[Tensor]
) -> None:
    compiler, compiled = Compiler(enabled=True), []
    compiler.before = lambda: compiled.append(1)
    made = compiler(function, tensors, [0, *(None for _ in tensors[1:])])

    for lanes in (5, 1, 2, 3, 17):
        weight = weights(lanes, *tensors[0].shape[1:])
        expected = function(weight, *tensors[1:])
        torch.testing.assert_close(made(weight, *tensors[1:]), expected)
    assert (compiler.enabled, len(compiled)) == (True, 1)


@COMPILES
def test_code_in_the_cache_for_one_number_of_lanes_serves_no_other() -> None:
    x = torch.randn(2, 3, 8, 8)

    def make(lanes: int) -> Function:
        return Compiler(enabled=True)(convolve, [weights(lanes, 2, 3, 3, 3), x], [0, None])

    for made in (make(5), make(7), make(5)):
        for lanes in (7, 5, 2):
            weight = weights(lanes, 2, 3, 3, 3)
            torch.testing.assert_close(made(weight, x), convolve(weight, x))


# Another torch, whose private modules are missing or have changed.


CACHE = "torch._inductor.runtime.cache_dir_utils"


def other_compile(graph: Any, inputs: Any) -> Any:
    """Takes no options."""
    raise AssertionError


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda mp: mp.setitem(sys.modules, CACHE, None), f"import of {CACHE} halted"),
        (lambda mp: mp.delattr(torch._inductor, "compile"), "no attribute 'compile'"),
        (lambda mp: mp.setattr(torch._inductor, "compile", other_compile), "argument 'options'"),
    ],
    ids=["without a module", "without its function", "with another signature"],
)
def test_with_another_inductor_functions_are_traced_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[pytest.MonkeyPatch], None], reason: str
) -> None:
    change(monkeypatch)
    compiler = Compiler(enabled=True)
    with pytest.warns(UserWarning, match=f"{reason}.*'pip check' tells") as warned:
        made = [compiler(loss, [weights(5, 4, 3), *BATCH], DIMS) for _ in range(2)]
    assert (len(warned), compiler.enabled) == (1, False)
    for function in made:
        weight = weights(7, 4, 3)
        assert torch.equal(function(weight, *BATCH), traced(weight, *BATCH))
    assert compiler.costs.seconds > 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda mp: mp.setitem(sys.modules, "torch._guards", None), "ModuleNotFoundError"),
        (lambda mp: mp.delattr(torch._guards, "TracingContext"), "ImportError: cannot import"),
        (lambda mp: mp.setattr(torch._guards, "tracing", lambda: None), "TypeError"),
    ],
    ids=["missing", "without its class", "with another signature"],
)
def test_a_torch_that_cannot_trace_is_told_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[pytest.MonkeyPatch], None], reason: str
) -> None:
    assert tracing_fault() is None
    change(monkeypatch)
    said = tracing_fault()
    assert said is not None
    assert said.startswith(f"torch {torch.__version__} cannot trace lanes ({reason}")
    assert said.endswith("install a torch that tuner is tested with, which 'pip check' tells")
