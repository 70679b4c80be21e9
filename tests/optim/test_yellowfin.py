from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from tests.optim.networks import Words, network, train
from tuner.domain.catalog.schedules import SCHEDULES
from tuner.errors import SpecError, WorkloadError
from tuner.optim import CompositeOptimizer, YellowFin, build_schedule
from tuner.optim.composite import FrozenGroup
from tuner.optim.groups import describe_groups
from tuner.optim.yellowfin_closed_loop import ClosedLoop
from tuner.optim.yellowfin_statistics import solve_cubic

TRACES = Path(__file__).parent / "data"

SETTINGS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "unclipped": {"adapt_clip": False},
    "nesterov": {"nesterov": True},
    "decay": {"weight_decay": 0.01},
    "nesterov, decay": {"nesterov": True, "weight_decay": 0.01},
    "measured decay": {"weight_decay": 0.01, "measure_decay": True},
    "sparse": {"sparsity_debias": True},
    "closed loop": {"closed_loop": True},
    "stale closed loop": {"closed_loop": True, "staleness": 2},
    "sums soon scaled back": {"beta": 0.2},
    "short window": {"window": 3},
}
every_setting = pytest.mark.parametrize("options", SETTINGS.values(), ids=list(SETTINGS))


def parameters(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(s, generator=generator).to(dtype).requires_grad_() for s in shapes]


def walk(optimizer: torch.optim.Optimizer, steps: int, *, seed: int = 1) -> None:
    """Steps down a noisy bowl; the noise is the seed's."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for group in optimizer.param_groups:
            for p in group["params"]:
                noise = torch.randn(p.shape, generator=generator)
                p.grad = (p.detach() + 0.3 * noise).to(p.dtype)
        optimizer.step()


def values(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]


def applied(optimizer: torch.optim.Optimizer, group: int = 0) -> tuple[float, float]:
    found = optimizer.param_groups[group]
    return float(found["lr"]), float(found["momentum"])


def equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


# What it computes


@pytest.mark.parametrize("name", ["plain", "clipped"])
def test_it_does_what_the_authors_release_does(name: str) -> None:
    trace = np.load(TRACES / f"yellowfin_{name}.npz")
    starts, curvatures, optima, noises = (
        [torch.tensor(trace[f"{part}_{k}"]).float() for k in (0, 1)]
        for part in ("start", "curvature", "optimum", "noise")
    )
    tensors = [start.requires_grad_() for start in starts]
    optimizer = YellowFin(tensors, adapt_clip=bool(trace["adapt_clip"].item()))
    rows: list[dict[str, Any]] = []
    for step in range(len(trace["lr"])):
        for k, x in enumerate(tensors):
            x.grad = curvatures[k] * (x.detach() - optima[k]) + noises[k][step]
        optimizer.step()
        lr, momentum = applied(optimizer)
        params = torch.cat(tensors).detach().numpy().copy()
        rows.append(optimizer.measured | {"lr": lr, "momentum": momentum, "params": params})
    for key in ("lr", "momentum", "h_min", "h_max", "grad_var", "dist_to_opt"):
        found = [float(row[key]) for row in rows]
        np.testing.assert_allclose(found, trace[key], rtol=2e-3, err_msg=key)
    moved = np.stack([row["params"] for row in rows])
    np.testing.assert_allclose(moved, trace["params"], rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_it_moves_parameters_as_sgd_does(nesterov: bool, weight_decay: float) -> None:
    ours, theirs = parameters((3, 2), (4,)), parameters((3, 2), (4,))
    optimizer = YellowFin(ours, adapt_clip=False, nesterov=nesterov, weight_decay=weight_decay)
    sgd = torch.optim.SGD(theirs, lr=1.0, momentum=0.5, weight_decay=weight_decay)
    sgd.param_groups[0]["nesterov"] = nesterov
    for step in range(50):
        walk(optimizer, 1, seed=step)
        for p, q in zip(ours, theirs, strict=True):
            q.grad = p.grad
        sgd.param_groups[0]["lr"], sgd.param_groups[0]["momentum"] = applied(optimizer)
        sgd.step()
    torch.testing.assert_close(values(optimizer), values(sgd), rtol=1e-4, atol=1e-5)


def test_weight_decay_is_measured_only_if_asked() -> None:
    decays: tuple[dict[str, Any], ...] = (
        {},
        {"weight_decay": 0.5},
        {"weight_decay": 0.5, "measure_decay": True},
    )
    plain, decayed, measured = (YellowFin(parameters((5,)), **options) for options in decays)
    for optimizer in (plain, decayed, measured):
        walk(optimizer, 1)
    assert torch.equal(plain.measured["h_max"], decayed.measured["h_max"])
    assert plain.measured["h_max"] < measured.measured["h_max"]
    assert not equal(values(plain), values(decayed))


def test_where_it_is_measured_decay_is_part_of_the_gradient() -> None:
    decayed, by_hand = (
        YellowFin(parameters((5,)), weight_decay=0.5, measure_decay=True),
        YellowFin(parameters((5,))),
    )
    for _ in range(30):
        for optimizer, factor in ((decayed, 1.0), (by_hand, 1.5)):
            (p,) = optimizer.param_groups[0]["params"]
            p.grad = factor * p.detach()
            optimizer.step()
    torch.testing.assert_close(values(decayed), values(by_hand))


def test_groups_are_measured_as_one_and_differ_by_their_factor() -> None:
    whole = YellowFin(parameters((3,), (4,)))
    first, second = parameters((3,), (4,))
    groups: list[dict[str, Any]] = [{"params": [first]}, {"params": [second], "lr_factor": 0.25}]
    split = YellowFin(groups)
    for optimizer in (whole, split):
        walk(optimizer, 1)
    assert whole.measured == split.measured
    walk(split, 30)
    (lr, momentum), (quarter, same) = applied(split, 0), applied(split, 1)
    assert quarter == pytest.approx(0.25 * lr)
    assert same == momentum


def test_alike_groups_come_to_one_group() -> None:
    whole = YellowFin(parameters((3,), (4,)))
    split = YellowFin([{"params": [p]} for p in parameters((3,), (4,))])
    for optimizer in (whole, split):
        walk(optimizer, 40)
    assert equal(values(whole), values(split))


def test_half_the_coordinates_zero_halves_the_curvature() -> None:
    (x,) = parameters((8,))
    optimizer = YellowFin([x], sparsity_debias=True)
    x.grad = torch.tensor([1.0, 0.0] * 4)
    optimizer.step()
    assert float(optimizer.measured["h_max"]) == pytest.approx(2.0)


def test_clipping_keeps_an_outlier_from_averages_and_parameters() -> None:
    moves, variances = [], []
    for adapt_clip in (True, False):
        optimizer = YellowFin(parameters((50,)), adapt_clip=adapt_clip)
        walk(optimizer, 100)
        before = values(optimizer)[0]
        (x,) = optimizer.param_groups[0]["params"]
        x.grad = 1e6 * torch.ones(50)
        optimizer.step()
        moves.append(float((x.detach() - before).norm()))
        variances.append(float(optimizer.measured["grad_var"]))
    assert moves[0] < 0.2
    assert variances[0] < 1000
    assert variances[1] > 1e9


def test_it_trains_a_network() -> None:
    model = network()
    first = train(model, YellowFin(model.parameters()), 1)
    assert train(model, YellowFin(model.parameters()), 300) < 0.5 * first


def test_the_closure_is_called_once_and_its_loss_returned() -> None:
    (x,) = parameters((2,))
    optimizer, calls = YellowFin([x]), []

    def closure() -> float:
        calls.append(torch.is_grad_enabled())
        x.grad = torch.ones(2)
        return 3.5

    assert optimizer.step(closure) == 3.5
    assert calls == [True]


# Laws
@given(st.floats(-30, 30))
def test_the_root_solves_the_cubic(exponent: float) -> None:
    p = torch.tensor(10.0**exponent, dtype=torch.float64)
    z = solve_cubic(p.sqrt())
    assert 0 < z <= 1
    torch.testing.assert_close(z**3 + p * z, p, rtol=1e-12, atol=0)


@settings(max_examples=30)
@given(sizes=st.lists(st.floats(-7, 7), min_size=1, max_size=12), adapt_clip=st.booleans())
def test_momentum_is_below_one_and_rates_are_finite(sizes: list[float], adapt_clip: bool) -> None:
    (x,) = parameters((3,))
    optimizer = YellowFin([x], adapt_clip=adapt_clip)
    for size in sizes:
        x.grad = torch.tensor([10.0**size, 0.0, -(10.0**size)])
        optimizer.step()
        lr, momentum = applied(optimizer)
        assert 0 <= momentum < 1
        assert 0 <= lr < float("inf")


@settings(max_examples=20)
@given(exponent=st.integers(-3, 4))
def test_scaling_the_loss_keeps_momentum_and_scales_the_rate_back(exponent: int) -> None:
    scale, found = 2.0**exponent, []
    for factor in (1.0, scale):
        (x,) = parameters((4,))
        optimizer, generator = YellowFin([x]), torch.Generator().manual_seed(2)
        for _ in range(40):
            x.grad = factor * (20 + 10 * torch.randn(4, generator=generator))
            optimizer.step()
        found.append(applied(optimizer))
    (lr, momentum), (scaled_lr, same) = found
    assert same == pytest.approx(momentum, rel=1e-2)
    assert scaled_lr * scale**2 == pytest.approx(lr, rel=1e-2)


# What it must bear


@every_setting
def test_zero_gradients_leave_everything_finite(options: dict[str, Any]) -> None:
    (x,) = parameters((3,))
    optimizer = YellowFin([x], **(options | {"weight_decay": 0.0}))
    before = values(optimizer)
    for _ in range(30):
        x.grad = torch.zeros(3)
        optimizer.step()
    assert equal(values(optimizer), before)
    assert all(np.isfinite(applied(optimizer)))


def test_a_single_number_finds_its_optimum() -> None:
    x = torch.tensor(3.0, requires_grad=True)
    optimizer = YellowFin([x])
    for _ in range(500):
        x.grad = x.detach() - 1
        optimizer.step()
    assert float(x.detach()) == pytest.approx(1.0, abs=0.05)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_sparse_gradients_train_as_dense_ones() -> None:
    sparse, dense = Words(), Words()
    dense.words.sparse = False
    for model in (sparse, dense):
        train(model, YellowFin(model.parameters()), 20)
    assert equal(list(sparse.parameters()), list(dense.parameters()))


def test_low_precision_parameters_keep_their_sums_in_float32() -> None:
    optimizer = YellowFin(parameters((6,), dtype=torch.bfloat16))
    before = values(optimizer)[0].norm()
    walk(optimizer, 300)
    (state,) = optimizer.state.values()
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    assert values(optimizer)[0].dtype is torch.bfloat16
    assert values(optimizer)[0].norm() < 0.7 * before


def test_parameters_of_several_types_train_together() -> None:
    params = parameters((3,)) + parameters((3,), dtype=torch.float64)
    walk(YellowFin(params), 20)
    alone = YellowFin(parameters((3,)) + parameters((3,)))
    walk(alone, 20)
    torch.testing.assert_close(params[1].detach().float(), values(alone)[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
@every_setting
def test_a_gradient_that_is_not_finite_shows(options: dict[str, Any], bad: float) -> None:
    optimizer = YellowFin(parameters((3,), (2,)), **options)
    walk(optimizer, 5)
    x = optimizer.param_groups[0]["params"][0]
    x.grad = torch.tensor([0.0, bad, 0.0])
    optimizer.step()
    walk(optimizer, 25)
    assert all(value.isnan().all() for value in values(optimizer))
    assert all(np.isnan(applied(optimizer)))


def test_a_parameter_without_a_gradient_is_left_alone() -> None:
    used, unused = parameters((3,), (2,))
    alone = YellowFin(parameters((3,)))
    both = YellowFin([used, unused])
    before = unused.detach().clone()
    for optimizer, p in ((alone, alone.param_groups[0]["params"][0]), (both, used)):
        for _ in range(10):
            p.grad = p.detach().clone()
            optimizer.step()
    assert torch.equal(unused.detach(), before)
    assert torch.equal(used.detach(), values(alone)[0])


def test_without_any_gradient_nothing_happens() -> None:
    optimizer = YellowFin(parameters((3,)))
    optimizer.step()
    assert optimizer.measured == {}


# No waiting for the device


def waits(act: Callable[[], object]) -> int:
    """Counts how often an action reads a scalar off its device."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        act()
    names = ("aten::_local_scalar_dense", "aten::item")
    return sum(event.count for event in seen.key_averages() if event.key in names)


@every_setting
def test_a_step_never_waits_for_the_device(options: dict[str, Any]) -> None:
    first, second, third = parameters((3, 2), (4,), (2,))
    groups: list[dict[str, Any]] = [
        {"params": [first, second]},
        {"params": [third], "lr_factor": 0.5},
    ]
    optimizer = YellowFin(groups, **options)
    walk(optimizer, 6)
    schedule = build_schedule("cosine", SCHEDULES["cosine"].decode({}), optimizer, 20)

    def act() -> None:
        optimizer.step()
        schedule.step()

    assert waits(act) == 0
    assert waits(lambda: float(optimizer.param_groups[0]["lr"])) > 0


@every_setting
def test_a_step_needs_no_value_and_no_cpu(options: dict[str, Any]) -> None:
    # Tensors of this device have no values: whoever asks for one gets an error.
    x = torch.zeros(3, 2, device="meta", requires_grad=True)
    optimizer = YellowFin([x], **options)
    for _ in range(6):
        x.grad = torch.zeros_like(x)
        optimizer.step()
    assert optimizer.param_groups[0]["lr"].device.type == "meta"


# State


def through_torch_save(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@every_setting
def test_a_state_continues_bit_for_bit(options: dict[str, Any], dtype: torch.dtype) -> None:
    first = YellowFin(parameters((3, 2), (4,), dtype=dtype), **options)
    walk(first, 12)
    saved = through_torch_save(first.state_dict())
    second = YellowFin([p.requires_grad_() for p in values(first)])
    second.load_state_dict(saved)
    assert second.measured.keys() == first.measured.keys()
    for optimizer in (first, second):
        walk(optimizer, 12, seed=5)
    assert equal(values(first), values(second))
    assert applied(first) == applied(second)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])  # noqa: S301
def test_a_copy_of_the_optimizer_continues_as_well(
    duplicate: Callable[[YellowFin], YellowFin],
) -> None:
    first = YellowFin(parameters((3, 2)), closed_loop=True)
    walk(first, 12)
    second = duplicate(first)
    for optimizer in (first, second):
        walk(optimizer, 12, seed=5)
    assert equal(values(first), values(second))


def test_who_loads_a_state_shares_nothing_with_who_gave_it() -> None:
    first = YellowFin(parameters((3,)))
    walk(first, 5)
    state, before = first.state_dict(), copy.deepcopy(first.state_dict())
    second = YellowFin(parameters((3,)))
    second.load_state_dict(state)
    walk(second, 5)
    assert str(state) == str(before)


def test_a_state_before_the_first_step_starts_over() -> None:
    fresh, used = YellowFin(parameters((3,))), YellowFin(parameters((3,)))
    walk(used, 5)
    used.load_state_dict(fresh.state_dict())
    assert used.measured == {}


def test_another_optimizers_state_is_refused() -> None:
    sgd = torch.optim.SGD(parameters((3,)), lr=0.1)
    with pytest.raises(SpecError, match="not of YellowFin"):
        YellowFin(parameters((3,))).load_state_dict(sgd.state_dict())


@every_setting
def test_a_group_that_joins_in_mid_run_trains(options: dict[str, Any]) -> None:
    optimizer = YellowFin(parameters((3,)), **options)
    walk(optimizer, 10)
    (new,) = parameters((6,))
    before = new.detach().clone()
    optimizer.add_param_group({"params": [new], "lr_factor": 2.0})
    walk(optimizer, 10)
    assert not torch.equal(new.detach(), before)
    assert values(optimizer)[1].isfinite().all()
    assert applied(optimizer, 1)[0] == pytest.approx(2 * applied(optimizer, 0)[0])


# Schedules


@pytest.mark.parametrize("name", list(SCHEDULES))
@pytest.mark.parametrize("clocked", [False, True])
def test_our_schedules_drive_the_factor(name: str, clocked: bool) -> None:
    row, taken = SCHEDULES[name], 0
    chosen = row.decode({})
    optimizer = YellowFin(parameters((3,)), lr_factor=0.5)
    clock = (lambda: taken) if clocked else None
    schedule = build_schedule(name, chosen, optimizer, 20, clock=clock)
    factor = row.factor(chosen, 20)
    for step in range(20):
        assert optimizer.param_groups[0]["lr_factor"] == pytest.approx(0.5 * factor(step))
        walk(optimizer, 1, seed=step)
        taken += 1
        schedule.step()


def test_the_factor_scales_what_is_applied() -> None:
    (x,) = parameters((3,))
    optimizer = YellowFin([x], lr_factor=1.0)
    schedule = build_schedule("linear", {"warmup": 0.0, "final_ratio": 0.0}, optimizer, 4)
    for _ in range(3):
        walk(optimizer, 1)
        schedule.step()
    tuned = (1 - float(optimizer.measured["target_momentum"]) ** 0.5) ** 2
    tuned = tuned / (float(optimizer.measured["h_min"]) + 1e-6) * 3 / optimizer.slow_start_steps
    assert applied(optimizer)[0] == pytest.approx(0.5 * tuned)


@pytest.mark.parametrize(
    "build",
    [
        lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9),
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 0.5),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, 10, cycle_momentum=False),
    ],
)
@pytest.mark.parametrize("steps_before", [0, 3])
def test_a_scheduler_of_torch_is_refused_at_the_next_step(
    build: Callable[[torch.optim.Optimizer], Any], steps_before: int
) -> None:
    optimizer = YellowFin(parameters((3,)))
    walk(optimizer, steps_before)
    scheduler = build(optimizer)
    with pytest.raises(WorkloadError, match="lr_factor"):  # noqa: PT012 (either may say so)
        for _ in range(2):
            walk(optimizer, 1)
            scheduler.step()


@pytest.mark.parametrize("key", ["lr", "momentum"])
def test_results_that_someone_writes_are_refused(key: str) -> None:
    optimizer = YellowFin(parameters((3,)))
    walk(optimizer, 1)
    optimizer.param_groups[0][key] = 0.1
    with pytest.raises(WorkloadError, match=r"wrote .*= 0.1"):
        walk(optimizer, 1)


def test_frozen_groups_thaw_with_our_schedules() -> None:
    first, second = parameters((3,), (2,))
    groups: list[dict[str, Any]] = [{"params": [first]}, {"params": [second], "frozen_until": 0.5}]
    optimizer = YellowFin(groups)
    waiting = optimizer.param_groups.pop()
    joint = CompositeOptimizer(
        [optimizer], [FrozenGroup(optimizer, waiting, tuple(waiting["params"]))]
    )
    schedule = build_schedule("cosine", SCHEDULES["cosine"].decode({}), joint, 10)
    before = second.detach().clone()
    for step in range(10):
        assert torch.equal(second.detach(), before) == (step <= 5)
        walk(joint, 1)
        schedule.step()


def test_groups_are_described_by_their_factor() -> None:
    optimizer = YellowFin(parameters((3,)), lr_factor=0.5, weight_decay=0.1)
    build_schedule("cosine", SCHEDULES["cosine"].decode({"warmup": 0.1}), optimizer, 20)
    walk(optimizer, 1)
    (group,) = describe_groups(optimizer)
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.5, None, 0.1)


# Closed loop


def stale_training(staleness: int, *, closed_loop: bool) -> tuple[float, float]:
    """Returns target and total momentum at the end of training with old gradients, averaged."""
    generator = torch.Generator().manual_seed(3)
    x = torch.ones(50, requires_grad=True)
    optimizer = YellowFin([x], beta=0.99, closed_loop=closed_loop, staleness=staleness)
    observer = ClosedLoop(x.device, staleness=staleness, gain=0.01)
    past, seen = [x.detach().clone()] * (staleness + 1), []
    for step in range(1200):
        x.grad = past[0] + 0.14 * torch.randn(50, generator=generator)
        observer.applied([x])
        optimizer.step()
        target = optimizer.measured["target_momentum"]
        observer.close(target, [x], [x.grad], [optimizer.param_groups[0]["lr"]])
        past = [*past[1:], x.detach().clone()]
        if step >= 800:
            seen.append((float(target), float(observer.total)))
    target, total = np.mean(seen, axis=0)
    return float(target), float(total)


def test_without_staleness_total_momentum_is_what_is_applied() -> None:
    optimizer = YellowFin(parameters((400,)), adapt_clip=False, closed_loop=True, window=1)
    walk(optimizer, 60)
    total = float(optimizer.measured["total_momentum"])
    assert total == pytest.approx(applied(optimizer)[1], abs=0.02)


def test_the_closed_loop_brings_total_momentum_to_its_target() -> None:
    open_target, open_total = stale_training(7, closed_loop=False)
    target, total = stale_training(7, closed_loop=True)
    assert abs(total - target) < 0.1
    assert abs(open_total - open_target) > 0.3


def test_total_momentum_is_unknown_until_there_is_enough_to_compare() -> None:
    optimizer = YellowFin(parameters((5,)), closed_loop=True, staleness=3)
    known = []
    for step in range(8):
        walk(optimizer, 1, seed=step)
        known.append(not bool(optimizer.measured["total_momentum"].isnan()))
    assert known == [False] * 4 + [True] * 4


# What it refuses


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr_factor": -1.0}, "lr_factor = -1.0"),
        ({"beta": 1.0}, "beta = 1.0"),
        ({"beta": 0.0}, "beta = 0.0"),
        ({"window": 0}, "window = 0"),
        ({"weight_decay": -0.1}, "weight_decay = -0.1"),
        ({"staleness": -1}, "staleness = -1"),
        ({"gain": 0.0}, "gain = 0.0"),
    ],
)
def test_values_outside_their_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        YellowFin(parameters((3,)), **options)


@pytest.mark.parametrize("name", ["lr", "momentum", "beta", "window", "closed_loop"])
def test_what_groups_share_is_refused_in_a_group(name: str) -> None:
    with pytest.raises(SpecError, match=f"{name} = 0.1 in a parameter group"):
        YellowFin([{"params": parameters((3,)), name: 0.1}])


def test_parameters_that_are_not_of_floating_point_are_refused() -> None:
    with pytest.raises(SpecError, match="complex64"):
        YellowFin([torch.zeros(2, dtype=torch.complex64)])


@pytest.mark.parametrize(
    "group", [{"params": [torch.zeros(2, dtype=torch.int64)]}, {"params": [], "lr_factor": -1.0}]
)
def test_a_group_that_is_refused_has_not_joined(group: dict[str, Any]) -> None:
    optimizer = YellowFin(parameters((3,)))
    with pytest.raises(SpecError):
        optimizer.add_param_group(group)
    assert len(optimizer.param_groups) == 1


def test_gradients_on_several_devices_are_refused() -> None:
    here, elsewhere = nn.Linear(2, 1), nn.Linear(2, 1, device="meta")
    optimizer = YellowFin([*here.parameters(), *elsewhere.parameters()])
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.zeros_like(p)
    with pytest.raises(WorkloadError, match="cpu, meta"):
        optimizer.step()
