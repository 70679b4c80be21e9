from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest

from tuner.domain.dimensions import Choice, Fixed, Float, Int
from tuner.domain.hyperparameters import FINE, LR, MAIN
from tuner.domain.optimizers import OPTIMIZERS, OptimizerRow

# What makes these rows what they are: torch's own SGD has neither.
DELIBERATE = {("momentum", "momentum"), ("nesterov", "momentum"), ("nesterov", "nesterov")}


def defaults_of(target: str) -> dict[str, Any]:
    module, _, name = target.rpartition(".")
    constructor = getattr(importlib.import_module(module), name)
    parameters = inspect.signature(constructor).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


@pytest.mark.parametrize("row", OPTIMIZERS.values(), ids=list(OPTIMIZERS))
class TestEveryOptimizer:
    def test_its_defaults_are_torch_s_own(self, row: OptimizerRow):
        for call in row.calls(row.decode({})):
            expected = defaults_of(call.target)
            for argument, value in call.arguments.items():
                assert argument in expected
                if (row.name, argument) not in DELIBERATE:
                    assert value == expected[argument]

    def test_its_search_ranges_are_not_empty(self, row: OptimizerRow):
        for knob in row.hyperparameters:
            match knob.dimension:
                case Float() | Int() as axis:
                    assert axis.low < axis.high
                case Choice() as axis:
                    assert len(axis.choices) > 1
                case Fixed():
                    pytest.fail(f"{row.name}.{knob.name} is never searched")

    def test_its_defaults_and_ranges_lie_within_their_bounds(self, row: OptimizerRow):
        for knob in row.hyperparameters:
            if not isinstance(knob.default, str):
                assert knob.default in knob.bounds
            assert knob.fit(knob.search_name, knob.dimension) == knob.dimension

    def test_it_says_what_it_is_and_where_it_comes_from(self, row: OptimizerRow):
        assert len(row.summary) > 20
        assert row.summary.endswith(".")
        assert any(character.isdigit() for character in row.reference)
        assert row.equation
        assert all(knob.source for knob in row.hyperparameters)

    def test_its_hyperparameters_have_different_keys(self, row: OptimizerRow):
        keys = [key for knob in row.hyperparameters for key in knob.keys]
        assert len(set(keys)) == len(keys)

    def test_the_narrowest_search_is_over_the_learning_rate_alone(self, row: OptimizerRow):
        searched = [
            name
            for knob in row.hyperparameters
            for name, axis in knob.axes(LR).items()
            if not isinstance(axis, Fixed)
        ]
        assert searched == ["lr"]

    def test_a_broader_search_keeps_what_a_narrower_one_searches(self, row: OptimizerRow):
        def searched(breadth: int) -> set[str]:
            axes = (knob.axes(breadth) for knob in row.hyperparameters)
            return {k for a in axes for k, axis in a.items() if not isinstance(axis, Fixed)}

        assert searched(LR) <= searched(MAIN) <= searched(FINE)

    def test_a_decoded_value_reaches_a_constructor(self, row: OptimizerRow):
        for knob in row.hyperparameters:
            point = row.decode({knob.name: 0.123})
            given = [str(call.arguments) for call in row.calls(point)]
            assert any("0.123" in arguments for arguments in given)

    def test_its_key_is_its_name(self, row: OptimizerRow):
        assert OPTIMIZERS[row.name] is row


def test_an_optimizer_for_matrices_leaves_the_rest_to_its_helper():
    row = OPTIMIZERS["muon"]
    matrices, others = row.calls(row.decode({"lr": 0.02, "adamw_lr": 0.003}))
    assert (matrices.parameters, others.parameters) == ("matrices", "others")
    assert (matrices.target, others.target) == ("torch.optim.Muon", "torch.optim.AdamW")
    assert matrices.arguments["lr"] == 0.02
    assert others.arguments == {"lr": 0.003}


def test_betas_are_given_as_a_pair():
    (call,) = OPTIMIZERS["adam"].calls(OPTIMIZERS["adam"].decode({"one_minus_beta1": 0.25}))
    assert call.arguments["betas"] == (0.75, 0.999)
    assert not {"beta1", "beta2"} & call.arguments.keys()


def test_an_optimizer_of_sparse_gradients_leaves_the_rest_to_its_helper():
    row = OPTIMIZERS["sparse_adam"]
    sparse, dense = row.calls(row.decode({"lr": 0.02, "adam_lr": 0.003}))
    assert (sparse.parameters, dense.parameters) == ("sparse", "dense")
    assert (sparse.target, dense.target) == ("torch.optim.SparseAdam", "torch.optim.Adam")
    assert sparse.arguments["lr"] == 0.02
    assert dense.arguments == {"lr": 0.003}


def test_torch_s_none_is_spelled_as_text():
    row = OPTIMIZERS["lbfgs"]
    searched = [
        row.calls(row.decode({"line_search_fn": name})) for name in ("none", "strong_wolfe")
    ]
    given = [call.arguments["line_search_fn"] for (call,) in searched]
    assert given == [None, "strong_wolfe"]


def test_lbfgs_alone_needs_a_closure_and_takes_no_groups():
    assert [row.name for row in OPTIMIZERS.values() if row.closure] == ["lbfgs"]
    assert [row.name for row in OPTIMIZERS.values() if not row.groups] == ["lbfgs"]
