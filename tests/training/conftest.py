from __future__ import annotations

import pytest

from models.digits import Digits
from models.parabola import Parabola
from tests.fused.cohorts import Blobs
from tests.training.trials import prepare_workload
from tuner.training.prepared_workload import PreparedWorkload


@pytest.fixture(scope="session")
def digits() -> PreparedWorkload:
    """Returns the workload with a network large enough to be worth training."""
    return prepare_workload(Digits())


@pytest.fixture(scope="session")
def parabola() -> PreparedWorkload:
    """Returns the quickest workload."""
    return prepare_workload(Parabola())


@pytest.fixture(scope="session")
def blobs() -> PreparedWorkload:
    """Returns what lanes are compared by, in float64."""
    return prepare_workload(Blobs(), "float64")
