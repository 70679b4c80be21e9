from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from tuner.optim.wrapped import unwrap


@pytest.fixture
def inner() -> torch.optim.Optimizer:
    return torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1)


def test_an_optimizer_is_found_in_a_wrapper(inner: torch.optim.Optimizer) -> None:
    prepared = Accelerator(cpu=True).prepare(inner)
    assert prepared is not inner
    assert unwrap(prepared, [inner]) is inner


def test_an_optimizer_that_is_known_is_not_looked_into(inner: torch.optim.Optimizer) -> None:
    prepared = Accelerator(cpu=True).prepare(inner)
    assert unwrap(prepared, [prepared, inner]) is prepared


def test_a_wrapper_of_an_unknown_optimizer_stays_as_it_is(inner: torch.optim.Optimizer) -> None:
    prepared = Accelerator(cpu=True).prepare(inner)
    assert unwrap(prepared, []) is prepared
    assert unwrap(inner, []) is inner
