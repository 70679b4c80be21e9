"""Every optimizer and schedule of the catalog trains, and survives a checkpoint."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models.digits import Digits
from models.sparse_digits import SparseDigits
from tests.optim.networks import EVERY_OPTIMIZER
from tests.training.trials import (
    check_continued,
    make_config,
    make_spec,
    prepare_workload,
    stop_and_go,
    train,
)
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.schedules import SCHEDULES
from tuner.training.prepared_workload import PreparedWorkload

STEPS, STOPPED_AT = 50, 23
# It first goes too far, and comes back.
LONGER = {"dadapt_adam": 100}

# One that keeps a momentum, one that keeps betas, and one whose betas mix weights to evaluate, as
# cycles of momentum tell them apart; one that sets both itself.
OF_EVERY_KIND = ("momentum", "adam", "schedulefree_adamw", "yellowfin")
EVERY_ROW = [(name, "cosine") for name in EVERY_OPTIMIZER] + [
    (optimizer, schedule) for optimizer in OF_EVERY_KIND for schedule in SCHEDULES
]


@pytest.fixture(scope="module")
def workloads() -> dict[str, PreparedWorkload]:
    """Returns digits by what an optimizer takes."""
    dense, sparse = prepare_workload(Digits()), prepare_workload(SparseDigits())
    return {"all": dense, "matrices": dense, "sparse": sparse}


@pytest.mark.parametrize(("optimizer", "schedule"), EVERY_ROW)
def test_a_trial_restored_from_disk_continues_identically(
    workloads: dict[str, PreparedWorkload], optimizer: str, schedule: str
) -> None:
    prepared = workloads[OPTIMIZERS[optimizer].takes]
    setting: Any = (make_spec(STEPS, 5), make_config(optimizer, schedule=schedule))
    whole = train(prepared, *setting)
    assert whole.outcome.ending == "complete"
    assert whole.run.taken == whole.steps_evaluated[-1] == STEPS
    check_continued(whole, *stop_and_go(prepared, STOPPED_AT, *setting))


@pytest.mark.parametrize("optimizer", EVERY_OPTIMIZER)
def test_digits_are_learned_from_the_defaults(
    workloads: dict[str, PreparedWorkload], optimizer: str
) -> None:
    prepared = workloads[OPTIMIZERS[optimizer].takes]
    untrained = prepared.evaluate(prepared.build_model(0))["val_loss"]
    steps = LONGER.get(optimizer, STEPS)
    trial = train(prepared, make_spec(steps, 1), make_config(optimizer, schedule="constant"))
    assert trial.values[-1] < untrained


@pytest.mark.parametrize("seed", range(5))
def test_lbfgs_learns_from_small_batches_whatever_the_rounding(
    workloads: dict[str, PreparedWorkload], seed: int
) -> None:
    # Its steps on mini-batches magnify the last bits, so no margin here is one of digits: with
    # torch's own defaults some of these end at a hundred times the untrained loss.
    prepared, spec = workloads["all"], make_spec(STEPS, 1, search={"seed": seed})
    untrained = prepared.evaluate(prepared.build_model(seed))["val_loss"]
    trial = train(prepared, spec, make_config("lbfgs", schedule="constant"))
    assert trial.values[-1] < 0.7 * untrained


@pytest.mark.parametrize("optimizer", ["adam", "muon", "sparse_adam", "lbfgs", "ranger", "soap"])
def test_the_same_spec_and_seed_give_the_same_trial(
    workloads: dict[str, PreparedWorkload], optimizer: str
) -> None:
    prepared = workloads[OPTIMIZERS[optimizer].takes]
    first, second = (train(prepared, config=make_config(optimizer)) for _ in range(2))
    assert torch.equal(first.parameters, second.parameters)
    assert first.evaluations == second.evaluations
