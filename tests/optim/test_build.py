from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.optim.networks import Words, network, train
from tuner.domain.dimensions import Choice, Dimension, Float, Int, Value
from tuner.domain.optimizers import OPTIMIZERS
from tuner.domain.schedules import SCHEDULES
from tuner.errors import WorkloadError
from tuner.optim import JointOptimizer, build_optimizer, build_schedule
from tuner.optim.groups import select_parameters

every_optimizer = pytest.mark.parametrize("name", list(OPTIMIZERS))

# What an optimizer must reach on the quadratic below in 200 steps, from its defaults but for lr.
LEARNING_RATES = {
    "adafactor": 0.5,
    "adadelta": 10.0,
    "sgd": 0.1,
    "momentum": 0.03,
    "nesterov": 0.03,
    "adagrad": 0.5,
    "muon": 0.02,
}


def network_for(name: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Returns a model that an optimizer can train."""
    return (Words().to(dtype)) if OPTIMIZERS[name].takes == "sparse" else network(dtype)


def value_within(draw: st.DataObject, axis: Dimension) -> Value:
    match axis:
        case Float():
            return draw.draw(st.floats(axis.low, axis.high))
        case Int():
            return draw.draw(st.integers(axis.low, axis.high))
        case Choice():
            return draw.draw(st.sampled_from(axis.choices))
    pytest.fail(f"{axis} is not searched")


def without_fused_kernels(name: str, values: dict[str, Value], model: nn.Module) -> Any:
    parts = []
    for call in OPTIMIZERS[name].calls(values):
        module, _, attribute = call.target.rpartition(".")
        constructor = getattr(importlib.import_module(module), attribute)
        selected = select_parameters(call.parameters, list(model.parameters()), model)
        # foreach=False is the plain loop over parameters, the reference of every faster kernel.
        accepted = inspect.signature(constructor).parameters
        plain = {"foreach": False} if "foreach" in accepted else {}
        parts.append(constructor(selected, **call.arguments, **plain))
    return parts[0] if len(parts) == 1 else JointOptimizer(parts)


@every_optimizer
def test_it_builds_from_its_defaults_and_changes_every_parameter(name: str):
    model = network_for(name)
    before = [p.detach().clone() for p in model.parameters()]
    train(model, build_optimizer(name, OPTIMIZERS[name].decode({}), model), 2)
    assert not any(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@every_optimizer
def test_it_holds_every_trainable_parameter_once(name: str):
    model = network_for(name)
    next(p for p in model.parameters() if p.ndim == 1).requires_grad_(False)
    optimizer = build_optimizer(name, OPTIMIZERS[name].decode({}), model)
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", [n for n in OPTIMIZERS if OPTIMIZERS[n].takes != "sparse"])
def test_it_minimises_a_quadratic(name: str):
    target = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)
    model = nn.Linear(3, 4).double()
    nn.init.zeros_(model.weight)
    nn.init.constant_(model.bias, 1.0)
    values = OPTIMIZERS[name].decode({"lr": LEARNING_RATES.get(name, 0.05)}) | (
        {"adamw_lr": 0.05} if name == "muon" else {}
    )
    optimizer = build_optimizer(name, values, model)

    def closure() -> Tensor:
        loss = (model.weight - target).square().sum() + model.bias.square().sum()
        optimizer.zero_grad()
        loss.backward()
        return loss

    for _ in range(200):
        loss = optimizer.step(closure)
    start = float(target.square().sum() + 4)
    assert loss.item() < 0.01 * start


@every_optimizer
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_keeps_the_dtype_of_parameters(name: str, dtype: torch.dtype):
    model = network_for(name, dtype)
    train(model, build_optimizer(name, OPTIMIZERS[name].decode({}), model), 3)
    assert {p.dtype for p in model.parameters()} == {dtype}


@every_optimizer
def test_it_has_the_hyperparameters_of_its_catalog_row(name: str):
    model = network_for(name)
    values = OPTIMIZERS[name].decode({"lr": 0.0123})
    optimizer = build_optimizer(name, values, model)
    for group, call in zip(optimizer.param_groups, OPTIMIZERS[name].calls(values), strict=True):
        assert {key: group[key] for key in call.arguments} == call.arguments


@settings(deadline=None, max_examples=50, derandomize=True)
@given(data=st.data(), name=st.sampled_from(list(OPTIMIZERS)))
def test_torch_accepts_every_point_of_the_search_space(data: st.DataObject, name: str):
    point: dict[str, Value] = {}
    for knob in OPTIMIZERS[name].hyperparameters:
        point[knob.search_name] = value_within(data, knob.dimension)
    model = network_for(name)
    train(model, build_optimizer(name, OPTIMIZERS[name].decode(point), model), 2)
    assert all(p.isfinite().all() for p in model.parameters())


@settings(deadline=None, max_examples=50, derandomize=True)
@given(data=st.data(), name=st.sampled_from(list(OPTIMIZERS)))
def test_torch_accepts_every_value_within_its_bounds(data: st.DataObject, name: str):
    point: dict[str, Value] = {}
    for knob in OPTIMIZERS[name].hyperparameters:
        bounds = knob.bounds
        if isinstance(knob.dimension, Choice):
            point[knob.name] = value_within(data, knob.dimension)
            continue
        point[knob.name] = data.draw(
            st.floats(
                bounds.low,
                min(bounds.high, 100.0),
                exclude_min=bounds.open_low,
                exclude_max=bounds.open_high,
            )
        )
    optimizer = build_optimizer(name, OPTIMIZERS[name].decode(point), network_for(name))
    assert optimizer.param_groups[0]["lr"] == point["lr"]


@every_optimizer
def test_a_fused_kernel_follows_the_plain_rule(name: str):
    values = OPTIMIZERS[name].decode({"lr": 0.01, "weight_decay": 0.01})
    fast, plain = network_for(name, torch.float64), network_for(name, torch.float64)
    train(fast, build_optimizer(name, values, fast), 20)
    train(plain, without_fused_kernels(name, values, plain), 20)
    for a, b in zip(fast.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "adagrad", "adam", "adamw"])
def test_the_fused_kernel_is_used_where_torch_has_one(name: str):
    optimizer = build_optimizer(name, OPTIMIZERS[name].decode({}), network())
    assert [group["fused"] for group in optimizer.param_groups] == [True]


def test_a_parameter_that_is_not_real_gets_the_plain_kernel():
    model = nn.ParameterList([torch.zeros(3, dtype=torch.complex64)])
    optimizer = build_optimizer("adam", OPTIMIZERS["adam"].decode({}), model)
    assert not optimizer.param_groups[0]["fused"]


def test_muon_takes_the_matrices_and_adamw_the_rest():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 5), nn.LayerNorm(5))
    optimizer = build_optimizer("muon", OPTIMIZERS["muon"].decode({}), model)
    assert isinstance(optimizer, JointOptimizer)
    muon, adamw = optimizer.parts
    assert (type(muon), type(adamw)) == (torch.optim.Muon, torch.optim.AdamW)
    assert [p is model[2].weight for p in muon.param_groups[0]["params"]] == [True]
    rest = {id(p) for p in model.parameters()} - {id(model[2].weight)}
    assert {id(p) for p in adamw.param_groups[0]["params"]} == rest


def test_muon_alone_trains_a_model_of_matrices():
    model = nn.Linear(3, 2, bias=False)
    optimizer = build_optimizer("muon", OPTIMIZERS["muon"].decode({}), model)
    assert type(optimizer) is torch.optim.Muon


def test_muon_refuses_a_model_without_matrices():
    with pytest.raises(
        WorkloadError, match=r"with two dimensions, but the model has none: leave muon out"
    ):
        build_optimizer("muon", OPTIMIZERS["muon"].decode({}), nn.LayerNorm(4))


def test_muon_refuses_a_model_whose_matrices_are_frozen():
    model = nn.Linear(3, 2)
    model.weight.requires_grad_(False)
    with pytest.raises(WorkloadError, match="with two dimensions, but the model has none"):
        build_optimizer("muon", OPTIMIZERS["muon"].decode({}), model)


@every_optimizer
def test_a_model_with_nothing_to_train_is_refused(name: str):
    with pytest.raises(WorkloadError, match="no trainable parameters"):
        build_optimizer(name, OPTIMIZERS[name].decode({}), nn.ReLU())


@pytest.mark.parametrize("name", list(SCHEDULES))
@pytest.mark.parametrize("optimizer_name", ["sgd", "muon"])
def test_a_schedule_multiplies_every_learning_rate(name: str, optimizer_name: str):
    model, row = network(), SCHEDULES[name]
    optimizer = build_optimizer(
        optimizer_name, OPTIMIZERS[optimizer_name].decode({"lr": 0.2, "adamw_lr": 0.4}), model
    )
    base = [group["lr"] for group in optimizer.param_groups]
    values = row.decode({}) | {"warmup": 0.2}
    schedule = build_schedule(name, values, optimizer, 20)
    factor = row.factor(values, 20)
    for step in range(20):
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([rate * factor(step) for rate in base])
        train(model, optimizer, 1)
        schedule.step()


def test_sparse_adam_takes_the_sparse_embeddings_and_adam_the_rest():
    model = Words()
    optimizer = build_optimizer("sparse_adam", OPTIMIZERS["sparse_adam"].decode({}), model)
    assert isinstance(optimizer, JointOptimizer)
    sparse, adam = optimizer.parts
    assert (type(sparse), type(adam)) == (torch.optim.SparseAdam, torch.optim.Adam)
    assert [p is model.words.weight for p in sparse.param_groups[0]["params"]] == [True]
    assert len(adam.param_groups[0]["params"]) == 2


def test_a_sparse_embedding_gets_no_fused_kernel():
    optimizer = build_optimizer("adagrad", OPTIMIZERS["adagrad"].decode({}), Words())
    assert not optimizer.param_groups[0].get("fused")


def test_sparse_adam_refuses_a_model_without_sparse_gradients():
    with pytest.raises(WorkloadError, match=r"gradients are sparse.*leave sparse_adam out"):
        build_optimizer("sparse_adam", OPTIMIZERS["sparse_adam"].decode({}), network())
