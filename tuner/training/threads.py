"""The number of threads that pay: fewer than there are cores, where others use these."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch

_TRIES, _TRY_S = 5, 0.01
_GAIN = 1.1
_NUMBERS = 1 << 17  # so few that threads wait for each other all the time, as in small models


def count_useful_threads() -> int:
    """Returns how many threads compute fastest at this moment, by a measurement of 0.1 s.

    On an idle machine that is the number that torch has, on a busy one often 1: threads that
    share out a small computation wait for the slowest of them, and one without a core is slow.
    """
    most = torch.get_num_threads()
    if most == 1:
        return 1
    numbers = torch.zeros(_NUMBERS)
    rates: dict[int, list[float]] = {most: [], 1: []}
    try:
        for _ in range(_TRIES):
            for threads, measured in rates.items():
                torch.set_num_threads(threads)
                measured.append(_measure(numbers))
    finally:
        torch.set_num_threads(most)
    return most if pays(rates[most], rates[1]) else 1


def pays(many: Sequence[float], one: Sequence[float]) -> bool:
    """Returns whether many threads are faster than one by a tenth, most of the time.

    >>> pays([1.3, 1.3, 0.1], [1.0, 1.0, 1.0]), pays([1.3, 0.1, 0.1], [1.0, 1.0, 1.0])
    (True, False)

    Args:
        many: Computations a second on many threads, one number a try.
        one: Those on one thread, in the same tries.
    """
    return statistics.median(a / b for a, b in zip(many, one, strict=True)) >= _GAIN


def _measure(numbers: torch.Tensor) -> float:
    """Returns how many times a second all threads can share out a small computation."""
    numbers.add_(1)  # threads are made on first use
    began, done = time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < _TRY_S:
        numbers.add_(1)
        done += 1
    return done / passed
