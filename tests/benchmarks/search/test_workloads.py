"""The small workloads can be learned, stay as they are, and train as lanes as they do alone."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from benchmarks.search import workloads
from benchmarks.search.workloads import WORKLOADS, SmallWorkload
from tests.fused.cohorts import check_same, train_lanes
from tests.training.trials import make_config, make_spec, prepare_workload
from tuner.fused.eligibility import Refusals
from tuner.training.workload import load_workload

STEPS = 5
EVERY = pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS)


@EVERY
def test_workload_is_found_by_its_name(workload: SmallWorkload) -> None:
    assert load_workload(f"benchmarks.search.workloads:{workload.name}") is workload


def test_other_names_are_not_found() -> None:
    assert not hasattr(workloads, "nothing")


def test_every_family_has_kin() -> None:
    assert min(Counter(workload.family for workload in WORKLOADS.values()).values()) > 1


@EVERY
def test_workload_is_small(workload: SmallWorkload) -> None:
    data = workload.data()

    assert 100 <= len(data.train[0]) <= 2_000
    assert 50 <= len(data.val[0]) <= 400
    assert 16 <= workload.batch_size <= 64
    assert sum(p.numel() for p in workload.model().parameters()) < 10_000


@EVERY
def test_data_stay_as_they_are(workload: SmallWorkload) -> None:
    torch.manual_seed(1)
    first = workload.data()
    torch.manual_seed(2)
    second = workload.data()

    for one, other in zip(first.train + first.val, second.train + second.val, strict=True):
        assert torch.equal(one, other)


@EVERY
def test_loss_falls(workload: SmallWorkload) -> None:
    torch.manual_seed(0)
    model, data = workload.model(), workload.data()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    losses = []
    for _ in range(20):
        loss = workload.loss(model, data.train)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        metrics = workload.metrics(model, data.val)

    assert losses[-1] < losses[0]
    assert metrics.keys() == {"val_loss"}
    assert math.isfinite(metrics["val_loss"])


@EVERY
def test_lanes_train_as_trials_do_alone(workload: SmallWorkload) -> None:
    names = ["adam", "momentum", "muon"]
    spec = make_spec(
        STEPS, 1, space={"optimizers": names}, train={"batch_size": workload.batch_size}
    )
    configs = [make_config(name, batch_size=workload.batch_size) for name in names]
    prepared = prepare_workload(workload, "float64")

    assert Refusals(prepared, spec)(configs[0]) is None
    fused = train_lanes(prepared, configs, spec)
    assert all(math.isfinite(fused.values(lane)[-1]) for lane in range(3))
    check_same(fused, prepared, spec, configs[:2])
    # Muon's iteration rounds to bfloat16.
    check_same(fused, prepared, spec, configs, [2], tolerance=1e-3)
