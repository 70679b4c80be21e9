"""Arms of confirmations, made by hand or drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from tuner.analysis.arms import Arm

SEEDS = 10


def arms_of(*rows: Sequence[float | None]) -> list[Arm]:
    """Returns arms of these values, numbered from 0."""
    return [Arm(trial, tuple(row)) for trial, row in enumerate(rows)]


def noisy_arms(means: Sequence[float], spread: float = 1.0, seeds: int = SEEDS) -> list[Arm]:
    """Returns arms of these means; seeds move them all alike, and each a little by itself."""
    generator = np.random.default_rng(0)
    shared = 3 * spread * generator.standard_normal(seeds)
    own = spread * generator.standard_normal((len(means), seeds))
    return arms_of(*(mean + shared + row for mean, row in zip(means, own, strict=True)))


def cut(arm: Arm, seeds: int) -> Arm:
    """Returns an arm as it was after so many seeds."""
    return replace(arm, values=arm.values[:seeds])


# Eighths, so that sums and differences are exact, and equal in any order.
VALUES = st.integers(-800, 800).map(lambda number: number / 8)
ROWS = st.lists(VALUES, min_size=SEEDS, max_size=SEEDS).map(tuple)


@st.composite
def fields(draw: st.DrawFn, diverging: bool = True) -> list[Arm]:
    """Draws two to five arms, some much better than others, with all their values."""
    arms = []
    for trial in range(draw(st.integers(2, 5))):
        offset = draw(st.sampled_from([0.0, 0.0, 200.0, 5000.0]))
        values: list[float | None] = [value + offset for value in draw(ROWS)]
        if diverging:
            for seed in draw(st.sets(st.integers(0, SEEDS - 1), max_size=3)):
                values[seed] = None
        arms.append(Arm(trial, tuple(values), complexity=draw(st.integers(0, 1))))
    return arms
