"""Estimates how long compiling takes and how much it gains, before anything is compiled."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.fx import GraphModule

from tuner.domain.places import is_private, make_private
from tuner.errors import StorageError

_LOAD_S = 2.0
"""Seconds to import Inductor, and to read code that it has compiled before."""

_FIRST_S = 3.0
"""Seconds more where nothing has ever been compiled: C++ headers are, once for all."""

_GRAPH_S, _NODE_S = 0.5, 1 / 60
"""Seconds to compile a graph, and more for each of its nodes.

Steps of 134 to 289 nodes took 6.5 to 10.4 seconds, headers included, and those of Muon, of 151 and
203, took 3.1 to 3.9, each on a core of Zen 4 with torch 2.13; cached, 1.6 to 2.2 for both.
"""

_LAUNCH_S, _CALL_S = 3.5e-6, 1e-4
"""Seconds besides computing: of a trace for each node, and of compiled code for a whole step."""

_QUICKER = 2.5
"""The speed at which compiled code computes, in that of a trace: 1.8 to 3.3 with 2 to 64 lanes."""

_NOTES, _LOCK = "tuner", "tuner.lock"
_FOLDER = "TORCHINDUCTOR_CACHE_DIR"


class CompileCosts:
    """The costs of compiling traces, and the speed that they should have then.

    Compiling takes less where this machine has compiled the same before. Compiled traces are noted
    in Inductor's cache, so that notes and code are lost together.
    """

    def __init__(self) -> None:
        self._nodes: dict[str, int] = {}

    @property
    def are_paid(self) -> bool:
        """Whether all traces have been compiled here, so that their code need only be loaded."""
        return self._nodes.keys() <= _read_notes()

    @property
    def seconds(self) -> float:
        """Seconds to compile all traces."""
        noted = _read_notes()
        new = [count for key, count in self._nodes.items() if key not in noted]
        first_s = 0.0 if noted else _FIRST_S
        return _LOAD_S + sum(_GRAPH_S + _NODE_S * count for count in new) + first_s

    def step_s(self, traced_s: float) -> float:
        """Returns the seconds a step should take once all is compiled.

        Args:
            traced_s: Seconds that it takes by the traces.
        """
        computing_s = traced_s - _LAUNCH_S * sum(self._nodes.values())
        return _CALL_S + max(0.0, computing_s) / _QUICKER

    def add(
        self, graph: GraphModule, tensors: Sequence[Tensor], dims: Sequence[int | None]
    ) -> None:
        """Takes a trace.

        Args:
            graph: The trace.
            tensors: Its arguments.
            dims: The dimension of each that counts lanes, of which there may be any number.
        """
        kinds = [
            (tensor.dtype, tensor.device.type, *_without(dim, tensor.shape))
            for tensor, dim in zip(tensors, dims, strict=True)
        ]
        # Code is compiled for a number of threads.
        text = repr((torch.__version__, torch.get_num_threads(), kinds, graph.code))
        self._nodes[hashlib.sha256(text.encode()).hexdigest()] = len(graph.graph.nodes)

    def note(self) -> None:
        """Notes that all traces have been compiled here."""
        with contextlib.suppress(
            OSError, StorageError
        ):  # without a note it is expected to take longer
            folder = check_cache() / _NOTES
            folder.mkdir(exist_ok=True)
            for key in self._nodes:
                Path(folder, key).touch()


def check_cache() -> Path:
    """Returns Inductor's cache: the folder of compiled code, which is run as it is found there.

    Raises:
        StorageError: If it is the one for temporary files, and could be another user's.
        ImportError: If the installed torch has no such folder.
    """
    from torch._inductor.runtime.cache_dir_utils import cache_dir, default_cache_dir

    usual = Path(default_cache_dir())
    # Another one is the user's own choice.
    if Path(os.environ.get(_FOLDER) or usual) == usual:
        make_private(usual)
        if not is_private(usual):
            raise StorageError(f"others may write into {usual}: set {_FOLDER} to a folder of yours")
    return Path(cache_dir())


def find_lock() -> Path:
    """Returns the file to lock while compiling for others: one process of a machine is enough.

    Raises:
        StorageError: If the cache could be another user's.
        ImportError: If the installed torch has none.
    """
    return check_cache() / _LOCK


def _without(dim: int | None, shape: Sequence[int]) -> list[int | None]:
    """Returns sizes but for the number of lanes."""
    return [None if own == dim else size for own, size in enumerate(shape)]


def _read_notes() -> set[str]:
    try:
        return {path.name for path in (check_cache() / _NOTES).iterdir()}
    except (OSError, StorageError, ImportError):  # the last: nothing can be compiled either
        return set()
