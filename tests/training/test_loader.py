from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from tuner.training.loader import ResumableLoader, length_of

EXAMPLES = 10


def loader_of(batch_size: int = 3) -> DataLoader[Any]:
    return DataLoader(list(range(EXAMPLES)), batch_size=batch_size, shuffle=True)  # type: ignore[arg-type]


def take(count: int, seed: int = 0, taken: int = 0, batch_size: int = 3) -> list[list[int]]:
    batches = ResumableLoader(loader_of(batch_size), seed, taken)
    return [batch.tolist() for batch in itertools.islice(batches, count)]


@settings(deadline=None, max_examples=50, derandomize=True)
@given(taken=st.integers(0, 30), batch_size=st.integers(1, EXAMPLES), seed=st.integers(0, 2**62))
def test_it_goes_on_from_any_batch(taken: int, batch_size: int, seed: int):
    straight = take(taken + 12, seed, batch_size=batch_size)
    assert take(12, seed, taken, batch_size) == straight[taken:]


def test_every_epoch_sees_every_example_once_in_an_order_of_its_own():
    batches = take(12)
    epochs = [list(itertools.chain(*batches[start : start + 4])) for start in (0, 4, 8)]
    assert all(sorted(epoch) == list(range(EXAMPLES)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_another_seed_gives_another_order():
    assert take(4, seed=0) != take(4, seed=1)


def test_the_order_depends_on_no_generator_and_leaves_torch_s_alone():
    expected = take(8)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert take(8) == expected
    assert torch.equal(torch.get_rng_state(), before)


def test_what_a_dataset_draws_in_passing_is_left_to_the_generators():
    random.seed(0)
    np.random.seed(0)
    first = (random.random(), np.random.rand())  # noqa: S311
    random.seed(0)
    np.random.seed(0)
    take(8)
    assert (random.random(), np.random.rand()) == first  # noqa: S311


@pytest.mark.parametrize("loader", [loader_of(), [1, 2, 3], {"a": 1}])
def test_anything_with_batches_has_a_length(loader: Any):
    assert length_of(loader) == len(loader)
