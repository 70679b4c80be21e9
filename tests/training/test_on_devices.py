"""What trains on the CPU trains on a GPU: lanes, their endings and checkpoints, and no waiting."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from tests.conftest import ON_DEVICES
from tests.fused.cohorts import (
    FUSABLE,
    Blobs,
    CohortRecorder,
    Droopy,
    Normed,
    check_same,
    train_lanes,
)
from tests.training.trials import make_config, make_spec
from tuner.fused.eligibility import Refusals
from tuner.fused.model import FusedModel
from tuner.optim import YellowFin
from tuner.training.prepared_workload import PreparedWorkload

TOLERANCE = {"cpu": 1e-10, "cuda": 1e-7}
"""How far lanes may be from single trials in float64: kernels of a GPU add up in another order."""

# Muon computes in bfloat16, where the last bits are the third digit.
EXACT = [name for name in FUSABLE if "muon" not in name]


def bench_on(workload: Blobs, device: str) -> PreparedWorkload:
    return PreparedWorkload.prepare(workload, torch.device(device), "float64")


@ON_DEVICES
@pytest.mark.parametrize(
    ("workload", "names"), [(Blobs(), EXACT), (Normed(), ["momentum", "adamw", "yellowfin"])]
)
def test_lanes_train_as_single_trials_do(workload: Blobs, names: list[str], device: str) -> None:
    prepared, spec = bench_on(workload, device), make_spec(steps=20, evaluations=2)
    configs = [make_config(name) for name in names]
    fused = train_lanes(prepared, configs, spec, CohortRecorder({1: 10}))
    others = [lane for lane in range(len(configs)) if lane != 1]
    check_same(fused, prepared, spec, configs, others, tolerance=TOLERANCE[device])


@ON_DEVICES
def test_dropout_is_drawn_as_single_trials_draw_it_or_not_fused(device: str) -> None:
    prepared, spec = bench_on(Droopy(), device), make_spec(steps=30, evaluations=3)
    config = make_config("adam")
    reason = Refusals(prepared, spec)(config)
    if reason is not None:
        # A GPU may draw for stacked models by another kernel than for one.
        assert device != "cpu"
        assert "side by side its models train otherwise than alone" in reason
        return
    fused = train_lanes(prepared, [config] * 3, spec)
    check_same(fused, prepared, spec, [config] * 3, tolerance=TOLERANCE[device])


@ON_DEVICES
def test_lanes_that_diverge_leave_the_others_alone(device: str) -> None:
    prepared, spec = bench_on(Blobs(), device), make_spec(steps=40, evaluations=4)
    configs = [make_config("sgd", lr=0.1), make_config("sgd", lr=1e308), make_config("adam")]
    fused = train_lanes(prepared, configs, spec)
    assert [outcome.ending for outcome in fused.outcomes] == ["complete", "diverged", "complete"]
    check_same(fused, prepared, spec, configs, (0, 2), tolerance=TOLERANCE[device])


@ON_DEVICES
def test_lanes_continue_from_their_checkpoints(device: str) -> None:
    prepared, spec = bench_on(Droopy(), device), make_spec(steps=30, evaluations=3)
    configs = [make_config(name) for name in ("adam", "yellowfin")]
    whole = train_lanes(prepared, configs, spec)
    stopped = train_lanes(prepared, configs, spec, CohortRecorder(interrupt_at=13))
    states = stopped.states(range(len(configs)))
    torch.rand(17, device=device)  # what else was drawn in between must not matter
    continued = train_lanes(prepared, configs, spec, states=states)
    for lane in range(len(configs)):
        found = stopped.values(lane) + continued.values(lane)
        assert found == pytest.approx(whole.values(lane), rel=0 if device == "cpu" else 1e-9)
        assert continued.outcomes[lane] == whole.outcomes[lane]


def waits(act: Callable[[], object], device: str) -> int:
    """Counts how often an action reads a scalar off its device, or waits for it."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        act()
    names = ("aten::_local_scalar_dense", "aten::item")
    count: int = sum(event.count for event in seen.key_averages() if event.key in names)
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            act()
        except RuntimeError:
            count += 1
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return count


@ON_DEVICES
def test_yellowfin_never_waits_for_the_device(device: str) -> None:
    parameters = [torch.ones(shape, device=device, requires_grad=True) for shape in ((3, 2), (4,))]
    optimizer = YellowFin(parameters)
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 0.1)
    for _ in range(6):
        optimizer.step()
    assert waits(optimizer.step, device) == 0
    assert waits(lambda: float(optimizer.param_groups[0]["lr"]), device) > 0


@ON_DEVICES
def test_a_step_of_lanes_never_waits_for_the_device(device: str) -> None:
    spec = make_spec(steps=40, evaluations=4, train={"grad_clip": 1.0})
    model = FusedModel(bench_on(Normed(), device), spec)
    configs = [make_config(name) for name in FUSABLE]
    family, coefficients = model.family(configs), model.coefficients(configs, 40)
    lanes = sorted(range(len(configs)), key=lambda lane: not coefficients.has_muon(lane))
    state = model.start(len(configs), family)
    table = coefficients.rows(0, 1, dtype=state.p.dtype, lanes=lanes)[0].to(device)
    batch = model.prepared.batch(torch.arange(32, device=device))
    step, muon = model.step(coefficients, family, 0), sum(map(coefficients.has_muon, lanes))
    with torch.no_grad():
        for _ in range(6):  # traced, and on a GPU recorded
            step(state, table, batch, muon)
        assert waits(lambda: step(state, table, batch, muon), device) == 0
