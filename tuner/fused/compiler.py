"""Traces and compiles functions of many lanes, once for any number of lanes.

Both use private modules of torch. They are imported where something is traced or compiled, so that
a torch which has others still trains: :func:`tracing_fault` tells whether it can trace, and a
:class:`Compiler` that cannot compile goes on with traces.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from tuner.fused.compile_costs import CompileCosts, check_cache
from tuner.training.seeds import undisturbed

Function = Callable[..., Tensor]

Dims = Sequence[int | None]
"""The dimension of each tensor that counts lanes; None for tensors that lanes share."""

Make = Callable[[Function, Sequence[Tensor], Dims], Function]
"""Traces or compiles a function for tensors like some."""

_FEW, _MORE = 2, 3
"""The numbers of lanes that a function is traced with; traces differ where lanes are counted."""

_NARROW = 16
"""Columns up to which a matrix is narrow."""

_UNLIKE = (ImportError, AttributeError, TypeError)
"""Errors of a torch whose private modules are others than expected."""

_TESTED_TORCH = "install a torch that tuner is tested with, which 'pip check' tells"
_COMPILER_AND_ROOM = (
    "see that there are a C++ compiler such as g++ and room in TORCHINDUCTOR_CACHE_DIR, or in the "
    "folder for temporary files"
)


class Compiler:
    """Traces or compiles functions of tensors, which then take any number of lanes.

    A function is traced as it runs. The trace alone, without the layers of ``vmap`` and autograd
    around each operation, takes half to a quarter of the time where tensors are small; Inductor
    makes it faster still, for seconds of its own. A call of the result takes half of the time of
    one through ``torch.compile``, whose guards look at everything a function may depend on. The
    function's operations must depend on its tensors' shapes alone; where two traces of it differ in
    more than the number of lanes, as where a model counts its calls, it is left as it is.

    Tracing once with a symbol for the number of lanes would do, but some of vmap's rules ask for a
    number. So two numbers are tried, and sizes that grow with them become multiples of the symbol.

    Args:
        enabled: Whether to compile, and not only trace.

    Attributes:
        enabled: Whether it compiles; False once that has failed.
        costs: The costs of compiling all traces.
        before: Called before it compiles, which may take a minute.
    """

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self.costs = CompileCosts()
        self.before: Callable[[], object] = lambda: None

    def __call__(self, function: Function, tensors: Sequence[Tensor], dims: Dims) -> Function:
        """Returns a function traced or compiled for tensors like these, or the function itself.

        Args:
            function: It returns one tensor; it may write into tensors that it is given.
            tensors: Its arguments; they are left as they are.
            dims: Where their lanes are; at least one has some.

        Raises:
            Exception: Whatever the function raises, or torch where :func:`tracing_fault` tells why.
        """
        rewritten = _REWRITTEN if self.enabled and tensors[0].device.type == "cpu" else {}
        try:
            graph = _trace_any(function, tensors, dims, rewritten)
        except _DifferError:
            return function
        self.costs.add(graph, tensors, dims)
        if not self.enabled:
            return _first_of(graph)
        self.before()
        try:
            check_cache()
            compiled, lanes = _compile(graph, tensors, dims)
        except Exception as error:  # noqa: BLE001 (a compiler that is missing or fails)
            self.enabled = False
            remedy = _TESTED_TORCH if isinstance(error, _UNLIKE) else _COMPILER_AND_ROOM
            warnings.warn(
                f"Fused training goes on without compiling, which failed: {_first_line(error)}. "
                f"To have it faster, {remedy}.",
                stacklevel=2,
            )
            return _first_of(graph)
        if lanes is None:
            return _first_of(compiled)
        return _first_of(_either(compiled, graph, lanes, *_whose(dims)))


def tracing_fault() -> str | None:
    """Returns why the installed torch cannot trace a function of many lanes, None if it can."""
    try:
        _trace_any(torch.sin, [torch.zeros(1, 2)], [0], {})
    except Exception as error:  # noqa: BLE001 (private modules of another torch raise anything)
        return (
            f"torch {torch.__version__} cannot trace lanes ({type(error).__name__}: "
            f"{_first_line(error)}): {_TESTED_TORCH}"
        )
    return None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def _first_of(function: Callable[..., Sequence[Tensor]]) -> Function:
    def run(*arguments: Tensor) -> Tensor:
        return function(*arguments)[0]

    return run


def _either(
    compiled: Callable[..., Sequence[Tensor]],
    graph: Callable[..., Sequence[Tensor]],
    lanes: int,
    index: int,
    dim: int,
) -> Callable[..., Sequence[Tensor]]:
    """Returns a function that runs compiled code for one number of lanes, else the trace."""

    def run(*arguments: Tensor) -> Sequence[Tensor]:
        made = compiled if arguments[index].shape[dim] == lanes else graph
        return made(*arguments)

    return run


# Tracing.


class _DifferError(Exception):
    """Two traces of a function are not the same function."""


def _trace_any(
    function: Function, tensors: Sequence[Tensor], dims: Dims, rewritten: Mapping[Any, Function]
) -> GraphModule:
    """Returns the trace of a function for any number of lanes.

    Raises:
        _DifferError: If it depends on that number otherwise than by its multiples.
    """
    graph, other = (
        _trace(function, _with_lanes(tensors, dims, lanes), rewritten) for lanes in (_FEW, _MORE)
    )
    return _Generalization(graph, *_whose(dims)).over(other)


def _trace(
    function: Function, tensors: Sequence[Tensor], rewritten: Mapping[Any, Function]
) -> GraphModule:
    from torch._guards import TracingContext, tracing
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    mode = FakeTensorMode(shape_env=ShapeEnv(), static_shapes=True)
    with undisturbed(tensors[0].device), tracing(TracingContext(mode)):
        return make_fx(lambda *arguments: (function(*arguments),), dict(rewritten))(*tensors)


def _with_lanes(tensors: Sequence[Tensor], dims: Dims, lanes: int) -> list[Tensor]:
    """Returns copies of tensors with a number of lanes, each like the first."""
    return [
        tensor.clone()
        if dim is None
        else tensor.index_select(dim, torch.zeros(lanes, dtype=torch.int64, device=tensor.device))
        for tensor, dim in zip(tensors, dims, strict=True)
    ]


def _whose(dims: Dims) -> tuple[int, int]:
    """Returns the index of the first tensor with lanes, and its dimension that counts them."""
    return next((index, dim) for index, dim in enumerate(dims) if dim is not None)


class _Generalization:
    """A trace whose sizes that count lanes are replaced by multiples of their number.

    Args:
        graph: The trace with :data:`_FEW` lanes, which is changed.
        index: The argument that tells the number of lanes.
        dim: Its dimension that counts them.
    """

    def __init__(self, graph: GraphModule, index: int, dim: int) -> None:
        self._graph = graph
        self._nodes = list(graph.graph.nodes)
        arguments = [node for node in self._nodes if node.op == "placeholder"]
        with graph.graph.inserting_after(arguments[-1]):
            lanes = graph.graph.call_function(torch.ops.aten.sym_size.int, (arguments[index], dim))
        self._multiples = {1: lanes}
        self._last = lanes
        self._twins: dict[Node, Node] = {}

    def over(self, other: GraphModule) -> GraphModule:
        """Returns the graph, once it has been compared with one with :data:`_MORE` lanes.

        Raises:
            _DifferError: If they differ in more than multiples of the number of lanes.
        """
        twins = list(other.graph.nodes)
        if len(twins) != len(self._nodes):
            raise _DifferError
        for node, twin in zip(self._nodes, twins, strict=True):
            if (node.op, node.target) != (twin.op, twin.target):
                raise _DifferError
            self._twins[node] = twin
            if node.op == "get_attr":
                one, two = getattr(self._graph, str(node.target)), getattr(other, str(twin.target))
                if one.shape != two.shape or not torch.equal(one, two):
                    raise _DifferError
            node.args = self._match(node.args, twin.args)
            node.kwargs = self._match(node.kwargs, twin.kwargs)
        self._graph.recompile()
        return self._graph

    def _match(self, one: Any, two: Any) -> Any:
        """Returns an argument for any number of lanes."""
        if isinstance(one, Node):
            if self._twins[one] is not two:
                raise _DifferError
            return one
        if isinstance(one, Mapping):
            return {name: self._match(value, two[name]) for name, value in one.items()}
        if isinstance(one, tuple | list):
            if len(one) != len(two):
                raise _DifferError
            return type(one)(self._match(a, b) for a, b in zip(one, two, strict=True))
        if type(one) is type(two) and (one == two or one is two):
            return one
        if type(one) is type(two) is int and one % _FEW == 0 and one * _MORE == two * _FEW:
            return self._multiple(one // _FEW)
        raise _DifferError

    def _multiple(self, factor: int) -> Node:
        """Returns a multiple of the number of lanes."""
        if factor not in self._multiples:
            with self._graph.graph.inserting_after(self._last):
                self._last = self._graph.graph.call_function(
                    operator.mul, (self._multiples[1], factor)
                )
            self._multiples[factor] = self._last
        return self._multiples[factor]


# Compiling.


def _compile(
    graph: GraphModule, tensors: Sequence[Tensor], dims: Dims
) -> tuple[Callable[..., Sequence[Tensor]], int | None]:
    """Compiles a graph by Inductor.

    Returns:
        The compiled function, and the one number of lanes it takes, None if it takes any. Where
        there is code in the cache that takes one number, and these tensors have another, it is the
        graph itself.
    """
    import torch._inductor
    from torch._guards import TracingContext, tracing
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    # Shapes without an environment would leave Inductor's cache on disk alone, which makes the
    # second process, or the next run, start in a fraction of the time.
    mode = FakeTensorMode(shape_env=ShapeEnv())
    index, dim = _whose(dims)
    if tensors[index].shape[dim] == 1:
        tensors = _with_lanes(tensors, dims, _FEW)  # Inductor takes 1 for a number of its own
    lanes = tensors[index].shape[dim]
    fakes: list[Any] = [
        mode.from_tensor(tensor, symbolic_context=_symbols(tensor.ndim, own))
        for tensor, own in zip(tensors, dims, strict=True)
    ]
    with warnings.catch_warnings(), tracing(TracingContext(mode)):
        # Torch uses what it deprecates. Its public torch.compile would guard every call.
        warnings.simplefilter("ignore", DeprecationWarning)
        compiled: Callable[..., Sequence[Tensor]] = torch._inductor.compile(
            graph, fakes, options={"size_asserts": True, **_hurry()}
        )
    if _serves(compiled, _with_lanes(tensors, dims, _MORE if lanes == _FEW else _FEW)):
        return compiled, None
    # The cache goes by the symbol: for another number, it gives the code of the first one.
    return (
        (compiled, lanes) if _serves(compiled, _with_lanes(tensors, dims, lanes)) else (graph, None)
    )


def _hurry() -> dict[str, Any]:
    """Returns options that spare Inductor its tests, for seconds each, of the CPU's instructions.

    Where torch itself computes with AVX-512, so can compiled code.
    """
    known = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return {"cpp.vec_isa_ok": True} if known else {}


def _serves(compiled: Callable[..., Sequence[Tensor]], tensors: Sequence[Tensor]) -> bool:
    """Tells whether a compiled function takes tensors of these shapes.

    Where Inductor has needed a number, it has taken that of the symbol, and refuses others; nothing
    else says so of code from its cache.
    """
    with undisturbed(tensors[0].device), torch.no_grad():
        try:
            compiled(*tensors)
        except AssertionError:
            return False
    return True


def _symbols(count: int, dim: int | None) -> Any:
    """Returns which sizes of a tensor are symbols: that of its lanes; the others are numbers."""
    from torch.fx.experimental.symbolic_shapes import DimDynamic, StatelessSymbolicContext

    sizes = [DimDynamic.STATIC] * count
    if dim is not None:
        sizes[dim] = DimDynamic.DUCK
    return StatelessSymbolicContext(sizes)


def _multiply(a: Tensor, b: Tensor) -> Tensor:
    """Multiplies tall matrices by narrow ones as wide by flat ones.

    On CPUs a few columns take twice as long as a few rows; and operations that follow, such as a
    softmax over ten classes, then have the examples side by side and can take many at once.
    """
    if b.shape[2] <= _NARROW < a.shape[1]:
        return torch.bmm(b.mT, a.mT).mT
    # As torch has it said that the product is left as it is.
    return NotImplemented  # type: ignore[no-any-return]


_REWRITTEN = {torch.ops.aten.bmm.default: _multiply}
"""The operations that compiled code computes otherwise on CPUs."""
