"""Averages of weights: their laws, torch's own as the measure, and what they may not cost."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

from tuner.domain.catalog.dimensions import Value
from tuner.optim.averages import Average, build_average

courses = st.lists(st.floats(-10, 10), min_size=1, max_size=30)
laws = settings(max_examples=50)


def one_weight() -> nn.Module:
    return nn.Linear(1, 1, bias=False).double()


def average_of(model: nn.Module, name: str = "swa", **values: Value) -> Average:
    average = build_average(name, {"start": 0.0, "interval": 1, **values}, model)
    assert average is not None
    return average


def held(model: nn.Module, average: Average) -> float:
    with average.applied():
        return next(model.parameters()).item()


def follow(course: list[float], name: str, **values: Value) -> float:
    """Returns the average of a weight that takes this course."""
    model = one_weight()
    average = average_of(model, name, **values)
    for step, weight in enumerate(course):
        nn.init.constant_(next(model.parameters()), weight)
        average.follow(step + 1, len(course))
    return held(model, average)


@laws
@given(courses)
def test_swa_is_the_mean_of_the_weights_visited(course: list[float]) -> None:
    mean = math.fsum(course) / len(course)
    assert follow(course, "swa") == pytest.approx(mean, rel=1e-9, abs=1e-9)


@laws
@given(courses, st.floats(0.0, 0.999))
def test_ema_weighs_what_it_visited_by_its_age(course: list[float], decay: float) -> None:
    first, *rest = course
    terms = [(1 - decay) * decay**age * w for age, w in enumerate(reversed(rest))]
    expected = math.fsum([first * decay ** len(rest), *terms])
    assert follow(course, "ema", decay=decay) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@laws
@given(courses, st.floats(0.0, 0.99), st.integers(1, 7))
def test_only_what_its_start_and_interval_meet_is_averaged(
    course: list[float], start: float, interval: int
) -> None:
    steps = range(max(1, math.ceil(start * len(course))), len(course) + 1, interval)
    mean = math.fsum(course[step - 1] for step in steps) / len(steps)
    found = follow(course, "swa", start=start, interval=interval)
    assert found == pytest.approx(mean, rel=1e-9, abs=1e-9)


def test_steps_that_cost_several_are_met_where_they_end() -> None:
    model = one_weight()
    average = average_of(model, start=0.5, interval=4)
    counts = []
    for taken in (3, 6, 8, 9, 13, 20):
        average.follow(taken, 10)
        counts.append(average.count)
    assert counts == [0, 1, 1, 1, 2, 3]


def a_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))


def move(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))


@pytest.mark.parametrize(
    ("name", "values", "update"),
    [
        ("swa", {}, get_swa_multi_avg_fn()),
        ("ema", {"decay": 0.9}, get_ema_multi_avg_fn(0.9)),
    ],
)
def test_it_holds_what_torch_s_averaged_model_holds(
    name: str, values: dict[str, Value], update: Callable[..., Any]
) -> None:
    model = a_network()
    ours, theirs = average_of(model, name, **values), AveragedModel(model, multi_avg_fn=update)
    for step in range(10):
        move(model)
        ours.follow(step + 1, 10)
        theirs.update_parameters(model)
    with ours.applied():
        for mine, reference in zip(model.parameters(), theirs.module.parameters(), strict=True):
            assert torch.equal(mine, reference)


@pytest.mark.parametrize("error", [None, RuntimeError])
def test_the_model_holds_its_own_weights_and_buffers_again_afterwards(
    error: type[Exception] | None,
) -> None:
    model = a_network()
    average = average_of(model)
    for step in range(3):
        move(model)
        average.follow(step + 1, 3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    identities = [id(p) for p in model.parameters()]
    try:
        with average.applied():
            assert not torch.equal(model.get_parameter("0.weight"), before["0.weight"])
            model.get_buffer("1.running_mean").fill_(7.0)
            model[1].running_var = torch.zeros(4)
            if error:
                raise error
    except RuntimeError:
        pass
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert [id(p) for p in model.parameters()] == identities


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_a_point_of_the_line_is_between_the_weights_and_the_average(weight: float) -> None:
    model = one_weight()
    average = average_of(model)
    for step, value in enumerate((1.0, 3.0)):
        nn.init.constant_(next(model.parameters()), value)
        average.follow(step + 1, 2)
    with average.applied(weight):
        assert next(model.parameters()).item() == pytest.approx(3.0 - weight)


def test_weights_of_several_types_are_averaged_each_in_its_own() -> None:
    kinds = (torch.float32, torch.float64, torch.bfloat16, torch.complex64)
    model = nn.ModuleList([nn.Linear(2, 2, dtype=dtype) for dtype in kinds])
    average, theirs = average_of(model), AveragedModel(model, multi_avg_fn=get_swa_multi_avg_fn())
    for step in range(4):
        move(model)
        average.follow(step + 1, 4)
        theirs.update_parameters(model)
    types = [weight.dtype for weight in average.state_dict()["weights"].values()]
    assert types == [p.dtype for p in model.parameters()]
    with average.applied():
        # Torch's divides by its count in float32, whatever the weights are.
        torch.testing.assert_close(
            list(model.parameters()), list(theirs.module.parameters()), rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize("name", ["swa", "ema"])
def test_following_waits_for_no_device(name: str) -> None:
    model = a_network()
    average = average_of(model, name, **({"decay": 0.9} if name == "ema" else {}))
    average.follow(1, 100)
    with torch.profiler.profile() as profile:
        for step in range(2, 12):
            average.follow(step, 100)
    seen = {event.key for event in profile.key_averages()}
    assert average.count == 11
    assert any("lerp" in key for key in seen)
    assert not seen & {"aten::item", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::copy_"}


@pytest.mark.parametrize("name", ["swa", "ema"])
def test_it_continues_from_its_state_alone(name: str) -> None:
    def run(stops: bool) -> dict[str, Tensor]:
        values: dict[str, Value] = {"decay": 0.9} if name == "ema" else {}
        model = a_network()
        average = average_of(model, name, start=0.2, interval=3, **values)
        for step in range(20):
            if stops and step in (2, 11):
                file = io.BytesIO()
                torch.save(average.state_dict(), file)
                file.seek(0)
                average = average_of(model, name, start=0.2, interval=3, **values)
                average.load_state_dict(torch.load(file, weights_only=True))
            move(model)
            average.follow(step + 1, 20)
        weights: dict[str, Tensor] = average.state_dict()["weights"]
        return weights

    whole, stopped = run(stops=False), run(stops=True)
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)


def test_the_state_of_another_model_is_refused() -> None:
    average = average_of(a_network())
    average.follow(1, 1)
    with pytest.raises(ValueError, match="the average of another model"):
        average_of(one_weight()).load_state_dict(average.state_dict())


def test_without_an_average_there_is_none_to_build() -> None:
    assert build_average("none", {}, one_weight()) is None
