from __future__ import annotations

import pytest

from models.digits import Digits
from models.parabola import Parabola
from tests.fused.cohorts import Blobs
from tests.training.trials import bench_of
from tuner.training.prepared_workload import Bench


@pytest.fixture(scope="session")
def digits() -> Bench:
    """Returns the workload with a network large enough to be worth training."""
    return bench_of(Digits())


@pytest.fixture(scope="session")
def parabola() -> Bench:
    """Returns the quickest workload."""
    return bench_of(Parabola())


@pytest.fixture(scope="session")
def blobs() -> Bench:
    """Returns what lanes are compared by, in float64."""
    return bench_of(Blobs(), "float64")
