from __future__ import annotations

import importlib
import inspect
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.optim.networks import EVERY_OPTIMIZER, Words, network, train
from tuner.domain.catalog.dimensions import Choice, Dimension, Fixed, Float, Int, Value
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.schedules import SCHEDULES
from tuner.errors import SpecError, WorkloadError
from tuner.optim import CompositeOptimizer, Lookahead, build_optimizer, build_schedule
from tuner.optim.groups import select_parameters

every_optimizer = pytest.mark.parametrize("name", EVERY_OPTIMIZER)

# What belongs to an optimizer as a whole.
NOT_OF_A_GROUP = {
    "beta",
    "window",
    "num_iterations",
    "lookahead_merge_time",
    "lookahead_blending_alpha",
}


def network_for(name: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Returns a model that an optimizer can train."""
    return (Words().to(dtype)) if OPTIMIZERS[name].takes == "sparse" else network(dtype)


def build(name: str, model: nn.Module, **point: Value) -> Any:
    """Returns an optimizer of the catalog; what is not told of its hyperparameters is a default."""
    return build_optimizer(name, OPTIMIZERS[name].decode(point), model, total_steps=200)


def value_within(draw: st.DataObject, axis: Dimension) -> Value:
    match axis:
        case Fixed():
            return axis.value
        case Float():
            return draw.draw(st.floats(axis.low, axis.high))
        case Int():
            return draw.draw(st.integers(axis.low, axis.high))
        case Choice():
            return draw.draw(st.sampled_from(axis.choices))
    pytest.fail(f"{axis} is not searched")


def without_fused_kernels(name: str, values: dict[str, Value], model: nn.Module) -> Any:
    parts = []
    for call in OPTIMIZERS[name].calls(values, steps=200):
        module, _, attribute = call.target.rpartition(".")
        constructor: Any = getattr(importlib.import_module(module), attribute)
        selected = select_parameters(call.parameters, list(model.parameters()), model)
        # foreach=False is the plain loop over parameters, the reference of every faster kernel.
        accepted = inspect.signature(constructor).parameters
        plain = {"foreach": False} if "foreach" in accepted else {}
        part = constructor(selected, **call.arguments, **plain)
        parts.append(Lookahead(part, **call.wrapper.arguments) if call.wrapper else part)
    return parts[0] if len(parts) == 1 else CompositeOptimizer(parts)


@every_optimizer
def test_it_builds_from_its_defaults_and_changes_every_parameter(name: str) -> None:
    model = network_for(name)
    before = [p.detach().clone() for p in model.parameters()]
    train(model, build(name, model), 2)
    assert not any(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@every_optimizer
def test_it_holds_every_parameter_once_frozen_ones_too(name: str) -> None:
    model = network_for(name)
    next(p for p in model.parameters() if p.ndim == 1).requires_grad_(False)
    optimizer = build(name, model)
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())


@every_optimizer
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_keeps_the_dtype_of_parameters(name: str, dtype: torch.dtype) -> None:
    model = network_for(name, dtype)
    train(model, build(name, model), 3)
    assert {p.dtype for p in model.parameters()} == {dtype}


@every_optimizer
def test_it_has_the_hyperparameters_of_its_catalog_row(name: str) -> None:
    model = network_for(name)
    row = OPTIMIZERS[name]
    values = row.decode({row.rate: 0.0123})
    optimizer = build_optimizer(name, values, model, total_steps=200)
    for group, call in zip(optimizer.param_groups, row.calls(values), strict=True):
        kept = call.arguments.keys() - NOT_OF_A_GROUP
        assert {key: group[key] for key in kept} == {key: call.arguments[key] for key in kept}
    for part in optimizer.parts if isinstance(optimizer, CompositeOptimizer) else [optimizer]:
        if row.wrapper is not None:
            assert isinstance(part, Lookahead)
            assert (part.k, part.alpha) == (values["lookahead_k"], values["lookahead_alpha"])


@settings(max_examples=50)
@given(data=st.data(), name=st.sampled_from(EVERY_OPTIMIZER))
def test_torch_accepts_every_point_of_the_search_space(data: st.DataObject, name: str) -> None:
    point: dict[str, Value] = {}
    for knob in OPTIMIZERS[name].hyperparameters:
        point[knob.search_name] = value_within(data, knob.dimension)
    model = network_for(name)
    train(model, build(name, model, **point), 2)
    assert all(p.isfinite().all() for p in model.parameters())


@settings(max_examples=50)
@given(data=st.data(), name=st.sampled_from(EVERY_OPTIMIZER))
def test_torch_accepts_every_value_within_its_bounds(data: st.DataObject, name: str) -> None:
    point: dict[str, Value] = {}
    for knob in OPTIMIZERS[name].hyperparameters:
        bounds = knob.bounds
        if isinstance(knob.dimension, Choice):
            point[knob.name] = value_within(data, knob.dimension)
            continue
        if isinstance(knob.dimension, Int):
            point[knob.name] = data.draw(st.integers(int(bounds.low), 100))
            continue
        point[knob.name] = data.draw(
            st.floats(
                bounds.low,
                min(bounds.high, 100.0),
                exclude_min=bounds.open_low,
                exclude_max=bounds.open_high,
            )
        )
    optimizer = build(name, network_for(name), **point)
    rate = OPTIMIZERS[name].rate
    assert optimizer.param_groups[0][rate] == point[rate]


@every_optimizer
def test_torch_accepts_the_ends_that_bounds_include(name: str) -> None:
    for hyperparameter in OPTIMIZERS[name].hyperparameters:
        bounds = hyperparameter.bounds
        if isinstance(hyperparameter.dimension, Choice):
            continue
        ends = [(bounds.low, bounds.open_low), (min(bounds.high, 1e6), bounds.open_high)]
        for end, is_open in ends:
            if not is_open:
                as_type = int if isinstance(hyperparameter.dimension, Int) else float
                build(name, network_for(name), **{hyperparameter.name: as_type(end)})


@every_optimizer
def test_a_fused_kernel_follows_the_plain_rule(name: str) -> None:
    row = OPTIMIZERS[name]
    values = row.decode({row.rate: 0.01, "weight_decay": 0.01})
    fast, plain = network_for(name, torch.float64), network_for(name, torch.float64)
    train(fast, build_optimizer(name, values, fast, total_steps=200), 20)
    train(plain, without_fused_kernels(name, values, plain), 20)
    for a, b in zip(fast.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "adagrad", "adam", "adamw"])
def test_the_fused_kernel_is_used_where_torch_has_one(name: str) -> None:
    optimizer = build_optimizer(name, OPTIMIZERS[name].decode({}), network())
    assert [group["fused"] for group in optimizer.param_groups] == [True]


def test_a_parameter_that_is_not_real_gets_the_plain_kernel() -> None:
    model = nn.ParameterList([torch.zeros(3, dtype=torch.complex64)])
    optimizer = build_optimizer("adam", OPTIMIZERS["adam"].decode({}), model)
    assert not optimizer.param_groups[0]["fused"]


def test_muon_takes_the_matrices_and_adamw_the_rest() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 5), nn.LayerNorm(5))
    optimizer = build_optimizer("muon", OPTIMIZERS["muon"].decode({}), model)
    assert isinstance(optimizer, CompositeOptimizer)
    muon, adamw = optimizer.parts
    assert (type(muon), type(adamw)) == (torch.optim.Muon, torch.optim.AdamW)
    assert [p is model[2].weight for p in muon.param_groups[0]["params"]] == [True]
    rest = {id(p) for p in model.parameters()} - {id(model[2].weight)}
    assert {id(p) for p in adamw.param_groups[0]["params"]} == rest


def test_muon_alone_trains_a_model_of_matrices() -> None:
    model = nn.Linear(3, 2, bias=False)
    optimizer = build_optimizer("muon", OPTIMIZERS["muon"].decode({}), model)
    assert type(optimizer) is torch.optim.Muon


def test_muon_refuses_a_model_without_matrices() -> None:
    with pytest.raises(
        WorkloadError, match=r"with two dimensions, but the model has none: leave muon out"
    ):
        build_optimizer("muon", OPTIMIZERS["muon"].decode({}), nn.LayerNorm(4))


def test_muon_takes_matrices_that_are_frozen_since_they_may_thaw() -> None:
    model = nn.Linear(3, 2)
    model.weight.requires_grad_(False)
    optimizer = build_optimizer("muon", OPTIMIZERS["muon"].decode({}), model)
    assert isinstance(optimizer, CompositeOptimizer)
    assert [p is model.weight for p in optimizer.parts[0].param_groups[0]["params"]] == [True]


@every_optimizer
def test_a_model_with_nothing_to_train_is_refused(name: str) -> None:
    with pytest.raises(WorkloadError, match="no trainable parameters"):
        build(name, nn.ReLU())


@pytest.mark.parametrize("name", list(SCHEDULES))
@pytest.mark.parametrize("optimizer_name", ["sgd", "muon"])
def test_a_schedule_multiplies_every_learning_rate(name: str, optimizer_name: str) -> None:
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


def test_sparse_adam_takes_the_sparse_embeddings_and_adam_the_rest() -> None:
    model = Words()
    optimizer = build_optimizer("sparse_adam", OPTIMIZERS["sparse_adam"].decode({}), model)
    assert isinstance(optimizer, CompositeOptimizer)
    sparse, adam = optimizer.parts
    assert (type(sparse), type(adam)) == (torch.optim.SparseAdam, torch.optim.Adam)
    assert [p is model.words.weight for p in sparse.param_groups[0]["params"]] == [True]
    assert len(adam.param_groups[0]["params"]) == 2


def test_a_sparse_embedding_gets_no_fused_kernel() -> None:
    optimizer = build_optimizer("adagrad", OPTIMIZERS["adagrad"].decode({}), Words())
    assert not optimizer.param_groups[0].get("fused")


def test_sparse_adam_refuses_a_model_without_sparse_gradients() -> None:
    with pytest.raises(WorkloadError, match=r"gradients are sparse.*leave sparse_adam out"):
        build_optimizer("sparse_adam", OPTIMIZERS["sparse_adam"].decode({}), network())


def test_a_package_that_is_missing_is_told_with_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(SpecError, match=r"Lion is of .* pip install 'tuner\[optimizers\]'"):
        build("lion", network())


def test_an_optimizer_that_must_know_how_long_it_trains_is_refused_without() -> None:
    with pytest.raises(
        SpecError, match=r"ranger21 is built .*set budget\.steps, or call run\.measure"
    ):
        build_optimizer("ranger21", OPTIMIZERS["ranger21"].decode({}), network())
