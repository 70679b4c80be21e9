"""Finds the Python state of a workload and its model: all values that can be reached from them.

State that a step changes there, other than parameters and buffers, is no part of a lane.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import hashlib
import itertools
import logging
import random
import sys
import threading
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_MOST, _DEEPEST = 20_000, 24
"""The most objects that are looked at, and the largest distance from a root."""

_ENDS = 256
"""Elements of a long container that are looked at, at either end."""

_BYTES = 2**24
"""Bytes up to which arrays are compared by content, and tensors by a thousandth of that."""

_PLAIN = (bool, int, float, complex, str, bytes, Enum, np.generic, np.dtype, PurePath, range, slice)
_PLAIN_OF_TORCH = (torch.dtype, torch.device, torch.Size)
_SKIPPED = (types.BuiltinFunctionType, logging.Logger, logging.Handler, threading.local)
_SILENT = (itertools.cycle, itertools.chain, itertools.islice, enumerate, zip, map, filter)
_OWN = ("_parameters", "_buffers", "_modules")
_OTHERS = {"torch", "numpy", "tuner"}


class Reachable:
    """Finds the plain values that can be reached from some objects, each by a path that names it.

    Attributes, elements, closures, and the globals that methods of classes outside libraries name
    are followed; registered parameters and buffers are not, nor the own state of libraries.

    Args:
        roots: Where to begin, by name.
    """

    def __init__(self, roots: Mapping[str, object]) -> None:
        self._roots = dict(roots)
        kinds = [type(root).__module__.partition(".")[0] for root in roots.values()]
        self._ours = {*kinds} - _OTHERS - sys.stdlib_module_names
        self._libraries: dict[str, bool] = {}

    def values(self) -> dict[str, Any]:
        """Returns them as they are now, in a form that can be compared later.

        It holds objects that it compares by identity, so that no new object can have theirs.
        """
        found: dict[str, Any] = {}
        seen: dict[int, object] = {}
        queue = collections.deque((path, root, 0) for path, root in self._roots.items())
        while queue and len(seen) < _MOST:
            path, value, depth = queue.popleft()
            if value is None or isinstance(value, _PLAIN + _PLAIN_OF_TORCH):
                # Written, NaN is what it was.
                found[path] = f"{type(value).__name__} {_digest(repr(value).encode())}"
            elif id(value) not in seen and not isinstance(value, _SKIPPED):
                seen[id(value)] = value
                # Objects of others may raise anything when they are looked at.
                with contextlib.suppress(Exception):
                    if (mark := _mark(value)) is not None:
                        found[path] = mark
                    if depth < _DEEPEST:
                        parts = self._parts(path, value)
                        queue.extend((name, part, depth + 1) for name, part in parts)
        return found

    def _parts(self, path: str, value: Any) -> Iterable[tuple[str, object]]:
        """Returns the objects that one refers to, by path."""
        parts: Iterable[tuple[str, object]] = ()
        match value:
            case Tensor() | types.ModuleType():
                pass
            case type():
                parts = self._of_class(value)
            case types.FunctionType():
                parts = self._of_function(path, value)
            case types.MethodType():
                parts = [(path, value.__func__), (path, value.__self__)]
            case staticmethod() | classmethod():
                parts = [(path, value.__func__)]
            case property():
                parts = [(path, value.fget), (path, value.fset)]
            case types.GeneratorType():
                frame = value.gi_frame
                names = {} if frame is None else {**frame.f_locals, "position": frame.f_lasti}
                parts = [(f"{path} ({name})", part) for name, part in names.items()]
            case functools.partial():
                called = (value.func, *value.args, *value.keywords.values())
                parts = [(f"{path}({place})", part) for place, part in enumerate(called)]
            case _:
                parts = itertools.chain(
                    self._elements(path, value),
                    self._attributes(path, value),
                    [(path, type(value))],
                )
        return parts

    def _elements(self, path: str, value: Any) -> Iterator[tuple[str, object]]:
        if isinstance(value, Mapping):
            for key, part in _ends(list(value.items())):
                yield f"{path}[{key!r:.80}]", part
        elif isinstance(value, Sequence | collections.deque) and not isinstance(value, bytearray):
            for place, part in _ends(list(enumerate(value))):
                yield f"{path}[{place}]", part

    def _attributes(self, path: str, value: Any) -> Iterator[tuple[str, object]]:
        own = getattr(value, "__dict__", None)
        for name, part in list(own.items()) if isinstance(own, dict) else ():
            if not (isinstance(value, nn.Module) and name in _OWN):
                yield f"{path}.{name}", part
        if isinstance(value, nn.Module):
            label = "" if path == "the model" else f"{path}."
            yield from ((f"{label}{name}", child) for name, child in value.named_children())
        for kind in type(value).__mro__:
            for name, slot in vars(kind).items():
                if isinstance(slot, types.MemberDescriptorType) and not self._is_library(kind):
                    yield f"{path}.{name}", getattr(value, name, None)

    def _of_class(self, kind: type) -> Iterator[tuple[str, object]]:
        for base in kind.__mro__:
            if not self._is_library(base):
                for name, part in vars(base).items():
                    if not name.startswith("__") or isinstance(part, types.FunctionType):
                        yield f"{base.__name__}.{name}", part

    def _of_function(self, path: str, function: types.FunctionType) -> Iterator[tuple[str, object]]:
        """Yields the objects that a function can change: its closure, and globals that it names."""
        if self._is_library(function):
            return
        path = getattr(function, "__qualname__", path)
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)
        for name, cell in cells:
            try:
                yield f"{name} of {path}", cell.cell_contents
            except ValueError:  # it is empty yet
                continue
        yield from ((f"{path}.{name}", part) for name, part in vars(function).items())
        for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            yield f"a default of {path}", default
        names = set(_names(function.__code__))
        known = function.__globals__
        for name in sorted(names & known.keys()):
            part = known[name]
            if not isinstance(part, types.ModuleType):
                yield f"{function.__module__}.{name}", part
            elif not self._is_named_library(part.__name__):
                for inner in sorted(names & vars(part).keys()):
                    yield f"{part.__name__}.{inner}", vars(part)[inner]

    def _is_library(self, value: Any) -> bool:
        return self._is_named_library(getattr(value, "__module__", None) or "builtins")

    def _is_named_library(self, name: str) -> bool:
        """Tells whether a module is the standard library's or an installed package's."""
        if name not in self._libraries:
            top = name.partition(".")[0]
            file = getattr(sys.modules.get(name), "__file__", None) or ""
            installed = {"site-packages", "dist-packages"} & {*PurePath(file).parts}
            known = top in _OTHERS or top in sys.stdlib_module_names
            self._libraries[name] = known or (bool(installed) and top not in self._ours)
        return self._libraries[name]


def _mark(value: Any) -> Any:
    """Returns a mark that changes with an object's content, where its parts do not show that."""
    mark: Any = None
    match value:
        case Tensor():
            small = value.nbytes * 1000 <= _BYTES and value.layout is torch.strided
            # A copy of it may take its place.
            mark = _content(value) if small else (_Same(value), value._version)  # noqa: SLF001
        case np.ndarray():
            mark = _digest(value.tobytes()) if value.nbytes <= _BYTES else _Same(value)
        case bytearray():
            mark = _digest(bytes(value))
        case random.Random():
            mark = _digest(repr(value.getstate()).encode())
        case np.random.Generator():
            mark = _digest(repr(value.bit_generator.state).encode())
        case np.random.RandomState():
            mark = _digest(repr(value.get_state(legacy=False)).encode())
        case torch.Generator():
            mark = _content(value.get_state())
        case itertools.count():
            mark = repr(value)
        case collections.abc.Iterator() if isinstance(value, _SILENT):
            mark = object()  # nothing tells where it is: it is never as it was
        case collections.abc.Iterator() if hasattr(value, "__length_hint__"):
            mark = value.__length_hint__()
        case Set():
            mark = (len(value), _digest(repr(sorted(map(repr, _ends(list(value))))).encode()))
        case Mapping() | Sequence() | collections.deque():
            mark = len(value)
    return mark


def _content(tensor: Tensor) -> str:
    plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    return f"{tuple(tensor.shape)} {_digest(plain.view(torch.uint8).numpy().tobytes())}"


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


class _Same:
    """Stands for one object: equal only to another that stands for the very same."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._value is other._value

    def __hash__(self) -> int:
        return id(self._value)


def _ends(elements: list[Any]) -> list[Any]:
    return elements if len(elements) <= 2 * _ENDS else elements[:_ENDS] + elements[-_ENDS:]


def _names(code: types.CodeType) -> Iterator[str]:
    """Yields the names that code refers to, that of functions within it included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)
