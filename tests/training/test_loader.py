from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset

from tests.training.trials import CPU
from tuner.errors import SpecError, WorkloadError
from tuner.training.loader import length_of, resume_batches

EXAMPLES = 10


def loader_of(batch_size: int = 3) -> DataLoader[Any]:
    return DataLoader(list(range(EXAMPLES)), batch_size=batch_size, shuffle=True)  # type: ignore[arg-type]


def take(count: int, seed: int = 0, taken: int = 0, batch_size: int = 3) -> list[list[int]]:
    batches = resume_batches(loader_of(batch_size), seed, taken, CPU)
    return [batch.tolist() for batch in itertools.islice(batches, count)]


class Own:
    """A loader of one's own: of a length, and with an iterator."""

    def __init__(self, length: int, iterate: Callable[[], Iterator[Any]]) -> None:
        self._length = length
        self._iterate = iterate

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Any]:
        return self._iterate()


def shuffled_by(shuffle: Callable[[Any], None], *, late: bool) -> Own:
    """Returns a loader whose order is drawn when it begins, or with its first batch."""

    def drawn() -> list[int]:
        order = list(range(EXAMPLES))
        shuffle(order)
        return order

    def draw_late() -> Iterator[int]:
        yield from drawn()

    return Own(EXAMPLES, draw_late if late else lambda: iter(drawn()))


@settings(max_examples=50)
@given(taken=st.integers(0, 30), batch_size=st.integers(1, EXAMPLES), seed=st.integers(0, 2**62))
def test_it_goes_on_from_any_batch(taken: int, batch_size: int, seed: int) -> None:
    straight = take(taken + 12, seed, batch_size=batch_size)
    assert take(12, seed, taken, batch_size) == straight[taken:]


def test_every_epoch_sees_every_example_once_in_an_order_of_its_own() -> None:
    batches = take(12)
    epochs = [list(itertools.chain(*batches[start : start + 4])) for start in (0, 4, 8)]
    assert all(sorted(epoch) == list(range(EXAMPLES)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_another_seed_gives_another_order() -> None:
    assert take(4, seed=0) != take(4, seed=1)


def test_the_order_depends_on_no_generator_and_leaves_torch_s_alone() -> None:
    expected = take(8)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert take(8) == expected
    assert torch.equal(torch.get_rng_state(), before)


def test_what_a_dataset_draws_in_passing_is_left_to_the_generators() -> None:
    random.seed(0)
    np.random.seed(0)
    first = (random.random(), np.random.rand())  # noqa: S311
    random.seed(0)
    np.random.seed(0)
    take(8)
    assert (random.random(), np.random.rand()) == first  # noqa: S311


@pytest.mark.parametrize("loader", [loader_of(), [1, 2, 3], {"a": 1}])
def test_anything_with_batches_has_a_length(loader: Any) -> None:
    assert length_of(loader) == len(loader)


@pytest.mark.parametrize("shuffle", [random.shuffle, np.random.shuffle])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("taken", [3, EXAMPLES, EXAMPLES + 4])
def test_an_order_from_any_source_is_repeated(
    shuffle: Callable[[Any], None], late: bool, taken: int
) -> None:
    def take_own(count: int, taken: int) -> list[int]:
        batches = resume_batches(shuffled_by(shuffle, late=late), 0, taken, CPU)
        return list(itertools.islice(batches, count))

    straight = take_own(3 * EXAMPLES, 0)
    assert take_own(EXAMPLES, taken) == straight[taken : taken + EXAMPLES]
    assert straight[:EXAMPLES] != straight[EXAMPLES : 2 * EXAMPLES]


def test_a_loader_that_raises_leaves_the_generators_alone() -> None:
    def fail() -> Iterator[Any]:
        random.random()  # noqa: S311
        raise ZeroDivisionError

    before = random.getstate()
    with pytest.raises(ZeroDivisionError):
        next(resume_batches(Own(3, fail), 0, 0, CPU))
    assert random.getstate() == before


def once() -> Own:
    stored = iter(range(4))
    return Own(4, lambda: stored)


@pytest.mark.parametrize(
    ("loader", "whole", "gave"),
    [
        (once(), 4, "gave 0 batches in epoch 2"),
        (Own(4, lambda: iter(range(3))), 3, "gave 3 batches in epoch 1"),
        (Own(4, lambda: iter(())), 0, "gave 0 batches in epoch 1"),
        (Own(4, itertools.count), 4, "gave more in epoch 1"),
    ],
    ids=["once", "short", "empty", "endless"],
)
def test_a_loader_that_does_not_keep_to_its_length_is_refused(
    loader: Own, whole: int, gave: str
) -> None:
    batches = resume_batches(loader, 0, 0, CPU)
    assert list(itertools.islice(batches, whole)) == list(range(whole))
    with pytest.raises(WorkloadError, match=rf"Own of length 4, which {gave}: every iter"):
        next(batches)


class Stream(IterableDataset[int]):
    """Examples that are drawn one by one, of which nobody says how many there are."""

    def __init__(self, amount: int) -> None:
        self._amount = amount

    def __iter__(self) -> Iterator[int]:
        yield from (int(i) for i in torch.randperm(self._amount))


def stream(amount: int = EXAMPLES) -> DataLoader[int]:
    return DataLoader(Stream(amount), batch_size=3)


def test_a_stream_of_a_told_length_goes_on_from_any_batch() -> None:
    def take_stream(count: int, taken: int) -> list[list[int]]:
        batches = resume_batches(stream(), 0, taken, CPU, 4)
        return [batch.tolist() for batch in itertools.islice(batches, count)]

    straight = take_stream(12, 0)
    assert straight[:4] != straight[4:8]
    for taken in (1, 4, 7):
        assert take_stream(12 - taken, taken) == straight[taken:]


def test_a_distributed_sampler_draws_another_order_each_epoch_and_repeats_it() -> None:
    def take_share(count: int, taken: int) -> list[Any]:
        sampler = DistributedSampler(range(EXAMPLES), 2, 0, shuffle=True)  # type: ignore[var-annotated, arg-type]
        loader: Any = DataLoader(range(EXAMPLES), sampler=sampler)  # type: ignore[arg-type]
        batches = resume_batches(loader, 0, taken, CPU)
        return [batch.tolist() for batch in itertools.islice(batches, count)]

    epoch = (EXAMPLES + 1) // 2
    straight = take_share(2 * epoch, 0)
    assert straight[:epoch] != straight[epoch:]
    assert take_share(epoch, epoch) == straight[epoch:]


@pytest.mark.parametrize(("amount", "gave"), [(9, "gave 3 batches"), (14, "gave more")])
def test_a_stream_of_another_length_than_told_is_refused(amount: int, gave: str) -> None:
    batches = resume_batches(stream(amount), 0, 0, CPU, 4)
    with pytest.raises(WorkloadError, match=rf"of length 4, which {gave} in epoch 1.*epoch_steps"):
        list(itertools.islice(batches, 5))


def test_a_stream_of_no_known_length_is_refused_with_the_ways_to_tell_it() -> None:
    with pytest.raises(SpecError, match=r"no length: say how many .* budget\.epoch_steps"):
        length_of(stream())


def test_a_loader_that_is_too_short_to_resume_is_refused() -> None:
    with pytest.raises(WorkloadError, match="of length 4, which gave 2 batches in epoch 6"):
        resume_batches(Own(4, lambda: iter(range(2))), 0, 23, CPU)
