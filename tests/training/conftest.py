from __future__ import annotations

import pytest
import torch

from models.digits import Digits
from models.parabola import Parabola
from tuner.training.trainer import Bench

# On tensors this small, waking a second thread costs more than it computes.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits() -> Bench:
    """Returns the workload with a network large enough to be worth training."""
    return Bench.prepare(Digits(), torch.device("cpu"), "float32")


@pytest.fixture(scope="session")
def parabola() -> Bench:
    """Returns the quickest workload."""
    return Bench.prepare(Parabola(), torch.device("cpu"), "float32")
