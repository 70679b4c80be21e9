from __future__ import annotations

import io
import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler as torch_schedules

from tuner.domain.catalog.dimensions import Value
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.schedules import SCHEDULES
from tuner.optim import CompositeOptimizer, Schedule, build_optimizer, build_schedule

STEPS, WARM, LR = 200, 20, 0.3
AFTER = STEPS - WARM
Twin = Callable[[torch.optim.Optimizer, int], Any]
CYCLING = [name for name, row in SCHEDULES.items() if row.cycles_momentum]
every_schedule = pytest.mark.parametrize("name", list(SCHEDULES))

METRICS = [3.0, 2.0, 2.5, 2.5, 2.5, 1.9, float("nan"), 1.95, 1.95, 5.0, 5.0, 5.0, 1.0, 1.0, 1.0]


def make_sgd(lr: float = LR, momentum: float = 0.9) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.zeros(2)], lr=lr, momentum=momentum)


def make_adam(lr: float = LR) -> torch.optim.Optimizer:
    return torch.optim.Adam([torch.zeros(2)], lr=lr)


def momenta(optimizer: torch.optim.Optimizer) -> list[float]:
    return [
        float(group["betas"][0] if "betas" in group else group.get("momentum", 0.0))
        for group in optimizer.param_groups
    ]


def rates(optimizer: torch.optim.Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


def standing(optimizer: torch.optim.Optimizer) -> tuple[list[float], list[float]]:
    return rates(optimizer), momenta(optimizer)


def follow(
    optimizer: torch.optim.Optimizer, schedule: Any, steps: int
) -> list[tuple[list[float], list[float]]]:
    """Returns what the optimizer trains with at each step."""
    course = []
    for _ in range(steps):
        course.append(standing(optimizer))
        optimizer.step()
        schedule.step()
    return course


def stable_decay_twin(optimizer: torch.optim.Optimizer, steps: int) -> Any:
    flat = round(0.8 * steps)
    parts = [
        torch_schedules.ConstantLR(optimizer, factor=1.0),
        torch_schedules.LinearLR(optimizer, 1.0, 0.0, total_iters=steps - flat),
    ]
    return torch_schedules.SequentialLR(optimizer, parts, milestones=[flat])


# What each row is called in torch, over `steps` steps: its values, and torch's scheduler.
TWINS: dict[str, tuple[dict[str, Value], Twin]] = {
    "constant": ({}, lambda o, steps: torch_schedules.ConstantLR(o, factor=1.0)),
    "linear": (
        {"final_ratio": 0.01},
        lambda o, steps: torch_schedules.LinearLR(o, 1.0, 0.01, total_iters=steps),
    ),
    "polynomial": (
        {"final_ratio": 0.0, "power": 2.5},
        lambda o, steps: torch_schedules.PolynomialLR(o, total_iters=steps, power=2.5),
    ),
    "cosine": (
        {"use_final_ratio": True, "final_ratio": 0.05},
        lambda o, steps: torch_schedules.CosineAnnealingLR(o, T_max=steps, eta_min=0.05 * LR),
    ),
    "cosine_restarts": (
        {"use_final_ratio": True, "final_ratio": 0.05, "cycles": 2, "T_mult": 3},
        lambda o, steps: torch_schedules.CosineAnnealingWarmRestarts(
            o, T_0=steps // 4, T_mult=3, eta_min=0.05 * LR
        ),
    ),
    "step": (
        {"gamma": 0.3, "period": 0.2},
        lambda o, steps: torch_schedules.StepLR(o, step_size=steps // 5, gamma=0.3),
    ),
    "multistep": (
        {"gamma": 0.3, "first": 0.6, "second": 0.85},
        lambda o, steps: torch_schedules.MultiStepLR(
            o, milestones=[round(0.6 * steps), round(0.85 * steps)], gamma=0.3
        ),
    ),
    "exponential": (
        {"final_ratio": 0.02},
        lambda o, steps: torch_schedules.ExponentialLR(o, gamma=0.02 ** (1 / steps)),
    ),
    # Our end lies one step after the last, as every scheduler's of torch but this one's.
    "one_cycle": (
        {"pct_start": 0.4},
        lambda o, steps: torch_schedules.OneCycleLR(
            o, max_lr=LR, total_steps=steps + 1, pct_start=(0.4 * steps + 1) / (steps + 1)
        ),
    ),
    "cyclic": (
        {"half_cycle": 0.1, "base_ratio": 0.2},
        lambda o, steps: torch_schedules.CyclicLR(
            o, base_lr=0.2 * LR, max_lr=LR, step_size_up=steps // 10
        ),
    ),
    "stable_decay": ({"cooldown": 0.2}, stable_decay_twin),
}
# Torch has nothing like it / follows the metric, see below.
WITHOUT_TWIN = {"inverse_sqrt", "plateau"}


def test_every_schedule_with_a_twin_in_torch_is_compared_with_it() -> None:
    assert TWINS.keys() | WITHOUT_TWIN == SCHEDULES.keys()


# One-cycle has no warmup but its rise, and torch cannot put a sequence into a sequence.
WARMED = [name for name in TWINS if name not in ("one_cycle", "stable_decay")]


@pytest.mark.parametrize("make", [make_sgd, make_adam])
@pytest.mark.parametrize("name", list(TWINS))
def test_a_whole_run_is_that_of_torch(name: str, make: Callable[[], torch.optim.Optimizer]) -> None:
    point, twin = TWINS[name]
    mine, theirs = make(), make()
    schedule = build_schedule(name, SCHEDULES[name].decode(point), mine, STEPS)
    expected = follow(theirs, twin(theirs, STEPS), STEPS)
    assert_same_course(follow(mine, schedule, STEPS), expected)


@pytest.mark.parametrize("make", [make_sgd, make_adam])
@pytest.mark.parametrize("name", WARMED)
def test_a_run_with_warmup_is_that_of_torch(
    name: str, make: Callable[[], torch.optim.Optimizer]
) -> None:
    point, twin = TWINS[name]
    mine, theirs = make(), make()
    values = SCHEDULES[name].decode(point | {"warmup": WARM / STEPS})
    start = 0.2 if name == "cyclic" else 1.0
    theirs.param_groups[0]["initial_lr"] = LR
    parts = [
        torch_schedules.LinearLR(theirs, start / WARM, start, total_iters=WARM - 1),
        twin(theirs, AFTER),
    ]
    warmed = torch_schedules.SequentialLR(theirs, parts, milestones=[WARM])
    expected = follow(theirs, warmed, STEPS)
    assert_same_course(follow(mine, build_schedule(name, values, mine, STEPS), STEPS), expected)


def assert_same_course(
    course: Sequence[tuple[list[float], list[float]]],
    expected: Sequence[tuple[list[float], list[float]]],
) -> None:
    for (lr, momentum), (their_lr, their_momentum) in zip(course, expected, strict=True):
        assert lr == pytest.approx(their_lr, rel=1e-9, abs=1e-15)
        assert momentum == pytest.approx(their_momentum, rel=1e-9)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("patience", [0.1, 0.2, 0.3])
@pytest.mark.parametrize("warmup", [0.0, 0.1])
def test_plateau_is_that_of_torch(direction: Any, patience: float, warmup: float) -> None:
    values: dict[str, Value] = {"warmup": warmup, "factor": 0.3, "patience": patience}
    mine, theirs = make_sgd(), make_sgd()
    schedule = build_schedule("plateau", values, mine, STEPS, evaluations=10, direction=direction)
    warm = max(1, round(warmup * STEPS))
    warming = torch_schedules.LinearLR(theirs, 1 / warm, 1.0, total_iters=warm - 1)
    rule = torch_schedules.ReduceLROnPlateau(
        theirs,
        "min" if direction == "minimize" else "max",
        factor=0.3,
        patience=round(10 * patience),
    )
    course, expected = [], []
    for value in METRICS:
        course += follow(mine, schedule, 10)
        expected += follow(theirs, warming, 10)
        signed = value if direction == "minimize" else -value
        schedule.observe(signed)
        rule.step(signed)
        assert rates(mine) == pytest.approx(rates(theirs), rel=1e-9)
    assert_same_course(course, expected)
    assert rates(mine)[0] < LR


def test_plateau_takes_no_number_for_no_improvement() -> None:
    optimizer = make_sgd()
    values: dict[str, Value] = {"warmup": 0.0, "factor": 0.1, "patience": 0.1}
    schedule = build_schedule("plateau", values, optimizer, STEPS)
    for value in (1.0, float("nan"), float("nan")):
        schedule.observe(value)
    assert rates(optimizer) == pytest.approx([0.1 * LR])


@every_schedule
def test_only_plateau_listens_to_the_metric(name: str) -> None:
    optimizer = make_sgd()
    schedule = build_schedule(name, SCHEDULES[name].decode({}), optimizer, STEPS)
    before = standing(optimizer)
    for value in METRICS:
        schedule.observe(value)
    assert (standing(optimizer) != before) == (name == "plateau")


@every_schedule
@pytest.mark.parametrize("optimizer_name", ["momentum", "adam", "muon"])
def test_every_group_follows_its_own_rate(name: str, optimizer_name: str) -> None:
    torch.manual_seed(0)
    model, row = torch.nn.Linear(3, 2), SCHEDULES[name]
    values = OPTIMIZERS[optimizer_name].decode({"lr": 0.2, "adamw_lr": 0.4})
    optimizer = build_optimizer(optimizer_name, values, model)
    base, own = standing(optimizer)
    course = row.decode({}) | ({} if name == "one_cycle" else {"warmup": 0.2})
    schedule = build_schedule(name, course, optimizer, 20)
    factor, momentum = row.factor(course, 20), row.momentum(course, 20)
    for step, (lr, beta) in enumerate(follow(optimizer, schedule, 20)):
        assert lr == pytest.approx([rate * factor(step) for rate in base])
        assert beta == (own if momentum is None else [momentum(step)] * len(own))


@pytest.mark.parametrize("name", CYCLING)
@pytest.mark.parametrize("optimizer_name", ["sgd", "adagrad", "rmsprop", "rprop", "adafactor"])
def test_an_optimizer_without_momentum_gets_none(name: str, optimizer_name: str) -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = build_optimizer(optimizer_name, OPTIMIZERS[optimizer_name].decode({}), model)
    schedule = build_schedule(name, SCHEDULES[name].decode({}), optimizer, 20)
    course = follow(optimizer, schedule, 20)
    assert {beta for _, betas in course for beta in betas} == {0.0}


@every_schedule
def test_it_stays_where_it_ends(name: str) -> None:
    optimizer = make_sgd()
    schedule = build_schedule(name, SCHEDULES[name].decode({}), optimizer, 20)
    follow(optimizer, schedule, 20)
    assert len({str(point) for point in follow(optimizer, schedule, 10)}) == 1


@every_schedule
@settings(max_examples=20)
@given(calls=st.lists(st.integers(1, 15), min_size=1, max_size=6))
def test_with_a_clock_it_matters_not_how_often_it_is_stepped(name: str, calls: list[int]) -> None:
    values = SCHEDULES[name].decode({"warmup": 0.1})
    often, seldom, taken = make_sgd(), make_sgd(), 0
    every = build_schedule(name, values, often, 40)
    clocked = build_schedule(name, values, seldom, 40, clock=lambda: taken)
    for steps in calls:
        follow(often, every, steps)
        taken += steps
        clocked.step()
        assert standing(seldom) == standing(often)


@every_schedule
def test_by_epoch_it_changes_only_between_epochs(name: str) -> None:
    row, optimizer = SCHEDULES[name], make_sgd()
    values = row.decode({"warmup": 0.3})
    schedule = build_schedule(name, values, optimizer, 95, epoch_steps=10)
    course = [lr for (lr,), _ in follow(optimizer, schedule, 95)]
    # Ten epochs begin in 95 steps; the course is that of ten steps.
    factor = row.factor(values, 10)
    assert course == [LR * factor(step // 10) for step in range(95)]


@pytest.mark.parametrize("name", CYCLING)
def test_by_epoch_momentum_changes_only_between_epochs(name: str) -> None:
    row, optimizer = SCHEDULES[name], make_adam()
    schedule = build_schedule(name, row.decode({}), optimizer, 100, epoch_steps=10)
    momentum = row.momentum(row.decode({}), 10)
    assert momentum is not None
    course = [beta for _, (beta,) in follow(optimizer, schedule, 100)]
    assert course == [momentum(step // 10) for step in range(100)]


@every_schedule
def test_a_group_that_joins_in_mid_run_follows_from_its_own_rate(name: str) -> None:
    row, optimizer = SCHEDULES[name], make_sgd()
    values = row.decode({})
    schedule = build_schedule(name, values, optimizer, 40)
    follow(optimizer, schedule, 15)
    optimizer.add_param_group({"params": [torch.zeros(1)], "lr": 0.02})
    schedule.adopt()
    factor, momentum = row.factor(values, 40), row.momentum(values, 40)
    for step, (lr, betas) in enumerate(follow(optimizer, schedule, 25), start=15):
        assert lr == pytest.approx([LR * factor(step), 0.02 * factor(step)])
        assert betas == [0.9 if momentum is None else momentum(step)] * 2


def test_a_group_that_joins_follows_from_the_next_step_on_unasked() -> None:
    optimizer = make_sgd()
    schedule = build_schedule("linear", SCHEDULES["linear"].decode({}), optimizer, 10)
    optimizer.add_param_group({"params": [torch.zeros(1)], "lr": 0.02})
    optimizer.step()
    schedule.step()
    assert rates(optimizer)[1] / 0.02 == pytest.approx(rates(optimizer)[0] / LR)


def stop_and_go(
    name: str, build: Callable[[], torch.optim.Optimizer], after: int, **options: Any
) -> tuple[list[Any], list[Any]]:
    """Returns the rest of a run, once gone through and once continued from its state."""
    values = SCHEDULES[name].decode({"warmup": 0.1})

    def go_on(optimizer: torch.optim.Optimizer, schedule: Schedule) -> list[Any]:
        course = []
        for value in METRICS[after:]:
            course += follow(optimizer, schedule, 3)
            schedule.observe(value)
        return course

    optimizer = build()
    schedule = build_schedule(name, values, optimizer, 40, **options)
    for value in METRICS[:after]:
        follow(optimizer, schedule, 3)
        schedule.observe(value)
    file = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    other = build()
    other_schedule = build_schedule(name, values, other, 40, **options)
    other.load_state_dict(state["optimizer"])
    other_schedule.load_state_dict(state["schedule"])
    assert standing(other) == standing(optimizer)
    return go_on(optimizer, schedule), go_on(other, other_schedule)


def make_joint() -> torch.optim.Optimizer:
    return CompositeOptimizer([make_sgd(), make_adam(0.01)])


@every_schedule
@pytest.mark.parametrize("make", [make_sgd, make_adam, make_joint])
@pytest.mark.parametrize("after", [0, 1, 7, 14])
def test_a_run_continues_from_its_state_as_if_never_stopped(
    name: str, make: Callable[[], torch.optim.Optimizer], after: int
) -> None:
    through, continued = stop_and_go(name, make, after)
    assert continued == through


@every_schedule
def test_a_run_by_epoch_continues_from_its_state(name: str) -> None:
    through, continued = stop_and_go(name, make_sgd, 7, epoch_steps=4, direction="maximize")
    assert continued == through


def test_the_state_may_be_restored_before_the_optimizer_s() -> None:
    optimizer = make_sgd()
    schedule = build_schedule("cosine", SCHEDULES["cosine"].decode({}), optimizer, 40)
    follow(optimizer, schedule, 20)
    other = make_sgd()
    restored = build_schedule("cosine", SCHEDULES["cosine"].decode({}), other, 40)
    restored.load_state_dict(schedule.state_dict())
    assert rates(other) == rates(optimizer)
    other.load_state_dict(optimizer.state_dict())
    assert follow(other, restored, 20) == follow(optimizer, schedule, 20)


def test_the_state_of_another_kind_of_schedule_is_refused() -> None:
    plain = build_schedule("cosine", SCHEDULES["cosine"].decode({}), make_sgd(), 40)
    other = torch_schedules.LambdaLR(make_sgd(), lambda step: 1.0)
    with pytest.raises(KeyError):
        plain.load_state_dict({"base_lrs": other.base_lrs})


def test_without_a_clock_torch_warns_of_the_wrong_order() -> None:
    optimizer = make_sgd()
    schedule = build_schedule("cosine", SCHEDULES["cosine"].decode({}), optimizer, 40)
    with pytest.warns(UserWarning, match="before `optimizer.step"):
        schedule.step()


def test_with_a_clock_the_order_is_nothing_to_warn_of() -> None:
    # A gradient scaler skips the optimizer's first steps without being in the wrong.
    optimizer, ticks = make_sgd(), itertools.count()
    schedule = build_schedule(
        "cosine", SCHEDULES["cosine"].decode({}), optimizer, 40, clock=lambda: next(ticks)
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        schedule.step()
        optimizer.step()
    assert caught == []
    assert schedule.last_epoch == 1


def test_it_tells_the_rates_like_every_scheduler_of_torch() -> None:
    optimizer = make_joint()
    schedule = build_schedule("linear", {"warmup": 0.0, "final_ratio": 0.0}, optimizer, 4)
    follow(optimizer, schedule, 1)
    assert isinstance(schedule, torch_schedules.LRScheduler)
    assert schedule.get_last_lr() == rates(optimizer) == pytest.approx([0.75 * LR, 0.0075])
