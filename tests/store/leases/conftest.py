from __future__ import annotations

import pytest

from tests.conftest import MakeSpec
from tests.store.leases.bench import Bench, Cohorts
from tuner.store import Database, Studies, StudyHandle


@pytest.fixture
def bench(database: Database, study: StudyHandle) -> Bench:
    return Bench(database, study)


@pytest.fixture
def cohorts(database: Database, make_spec: MakeSpec) -> Cohorts:
    budget = {"trials": 12, "steps": 20, "evaluations": 4}
    return Cohorts(database, Studies(database).create(make_spec(budget=budget)))
