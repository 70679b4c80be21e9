from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.training.seeds import BatchOrder, derive_seed

CPU = torch.device("cpu")
seeds = st.integers(0, 2**63 - 1)


@settings(max_examples=50)
@given(seeds, st.lists(st.one_of(st.integers(), st.text())))
def test_a_seed_fits_torch_and_stays_the_same(seed: int, path: list[str | int]) -> None:
    derived = derive_seed(seed, *path)
    assert 0 <= derived < 2**63
    assert derived == derive_seed(seed, *path)


def test_seeds_differ_between_purposes_counts_and_studies() -> None:
    paths = [(s, p, n) for s in range(20) for p in ("data", "init") for n in range(20)]
    assert len({derive_seed(*path) for path in paths}) == len(paths)


def test_a_derived_seed_does_not_change_between_releases() -> None:
    # A study resumed with a newer version must see the data in the order it began with.
    assert derive_seed(0, "init") == 7797302695267191734


@settings(max_examples=50)
@given(examples=st.integers(1, 60), data=st.data(), seed=seeds)
def test_the_order_depends_on_the_seed_and_the_step_alone(
    examples: int, data: st.DataObject, seed: int
) -> None:
    batch_size = data.draw(st.integers(1, examples))
    steps = 3 * (examples // batch_size)
    straight = BatchOrder(examples, batch_size, seed, CPU)
    batches = [straight(step) for step in range(steps)]
    jumping = BatchOrder(examples, batch_size, seed, CPU)
    for step in data.draw(st.permutations(range(steps))):
        assert torch.equal(jumping(step), batches[step])


@settings(max_examples=50)
@given(examples=st.integers(1, 60), data=st.data(), seed=seeds)
def test_an_epoch_repeats_no_example(examples: int, data: st.DataObject, seed: int) -> None:
    batch_size = data.draw(st.integers(1, examples))
    order = BatchOrder(examples, batch_size, seed, CPU)
    for epoch in range(3):
        first = epoch * order.steps_per_epoch
        seen = torch.cat([order(first + k) for k in range(order.steps_per_epoch)])
        assert len(seen) == order.steps_per_epoch * batch_size
        assert len(set(seen.tolist())) == len(seen)
        assert 0 <= int(seen.min()) <= int(seen.max()) < examples


def test_an_epoch_leaves_out_less_than_a_batch() -> None:
    assert BatchOrder(100, 32, 0, CPU).steps_per_epoch == 3


def test_every_example_is_seen_where_batches_divide_the_data() -> None:
    order = BatchOrder(60, 12, 0, CPU)
    seen = torch.cat([order(step) for step in range(5)])
    assert sorted(seen.tolist()) == list(range(60))


def test_epochs_and_seeds_differ_in_their_order() -> None:
    first, other = BatchOrder(60, 59, 0, CPU), BatchOrder(60, 59, 1, CPU)
    assert not torch.equal(first(0), first(1))
    assert not torch.equal(first(0), other(0))


def test_a_batch_of_all_examples_has_them_in_their_own_order() -> None:
    order = BatchOrder(60, 60, 0, CPU)
    assert order.steps_per_epoch == 1
    assert order(0).tolist() == order(7).tolist() == list(range(60))


def test_the_order_leaves_torch_s_own_generator_alone() -> None:
    before = torch.get_rng_state()
    BatchOrder(60, 10, 0, CPU)(3)
    assert torch.equal(torch.get_rng_state(), before)
