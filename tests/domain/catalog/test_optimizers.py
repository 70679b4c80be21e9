from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest
import pytorch_optimizer
import torch

from tests.optim.networks import EVERY_OPTIMIZER, network, train
from tests.training.trials import through_disk
from tuner.domain.catalog.calls import Call
from tuner.domain.catalog.dimensions import Choice, Fixed, Float, Int
from tuner.domain.catalog.hyperparameters import FINE, LR, MAIN
from tuner.domain.catalog.optimizers import OPTIMIZERS, OptimizerRow
from tuner.domain.catalog.pytorch_optimizer import PACKAGE, REFUSED
from tuner.domain.names import suggest
from tuner.optim import build_optimizer

# What makes these rows what they are: torch's own SGD has neither.
DELIBERATE = {
    ("momentum", "momentum"),
    ("nesterov", "momentum"),
    ("nesterov", "nesterov"),
    ("lookahead(momentum)", "momentum"),
    ("ranger", "k"),  # Ranger's own
    # torch's own runs away on mini-batches: see test_digits_are_learned_from_the_defaults.
    ("lbfgs", "line_search_fn"),
    ("lbfgs", "max_iter"),
}
# What an optimizer is told of a trial.
TOLD = {"num_iterations"}
# Where a knob is there to be fixed otherwise, but not searched.
FIXED = {("prodigy", "lr")}
# What is searched first where that is no learning rate: what the estimated one is multiplied with.
FIRST = {"prodigy": "d_coef"}
ROWS = [OPTIMIZERS[name] for name in EVERY_OPTIMIZER]


def defaults_of(target: str) -> dict[str, Any]:
    module, _, name = target.rpartition(".")
    constructor = getattr(importlib.import_module(module), name)
    parameters = inspect.signature(constructor).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


@pytest.mark.parametrize("row", ROWS, ids=EVERY_OPTIMIZER)
class TestEveryOptimizer:
    def test_its_defaults_are_torch_s_own(self, row: OptimizerRow) -> None:
        calls = row.calls(row.decode({}))
        for call in (*calls, *(call.wrapper for call in calls if call.wrapper)):
            expected = defaults_of(call.target)
            for argument in call.arguments.keys() - TOLD:
                assert argument in expected
                if (row.name, argument) not in DELIBERATE:
                    assert call.arguments[argument] == expected[argument]

    def test_its_search_ranges_are_not_empty(self, row: OptimizerRow) -> None:
        for knob in row.hyperparameters:
            match knob.dimension:
                case Float() | Int() as axis:
                    assert axis.low < axis.high
                case Choice() as axis:
                    assert len(axis.choices) > 1
                case Fixed():
                    assert (row.name, knob.name) in FIXED

    def test_its_defaults_and_ranges_lie_within_their_bounds(self, row: OptimizerRow) -> None:
        for knob in row.hyperparameters:
            if not isinstance(knob.default, str):
                assert knob.default in knob.bounds
            assert knob.fit(knob.search_name, knob.dimension) == knob.dimension

    def test_what_schedules_scale_is_among_its_arguments(self, row: OptimizerRow) -> None:
        for call in row.calls(row.decode({})):
            assert call.rate in call.arguments
        assert row.calls(row.decode({}))[0].rate == row.rate

    def test_it_says_what_it_is_and_where_it_comes_from(self, row: OptimizerRow) -> None:
        assert len(row.summary) > 20
        assert row.summary.endswith(".")
        assert any(character.isdigit() for character in row.reference)
        assert row.equation
        assert all(knob.source for knob in row.hyperparameters)

    def test_its_hyperparameters_have_different_keys(self, row: OptimizerRow) -> None:
        keys = [key for knob in row.hyperparameters for key in knob.keys]
        assert len(set(keys)) == len(keys)

    def test_the_narrowest_search_is_over_the_learning_rate_alone(self, row: OptimizerRow) -> None:
        searched = [
            name
            for knob in row.hyperparameters
            for name, axis in knob.axes(LR).items()
            if not isinstance(axis, Fixed)
        ]
        assert searched == [FIRST.get(row.name, row.rate)]

    def test_a_broader_search_keeps_what_a_narrower_one_searches(self, row: OptimizerRow) -> None:
        def searched(breadth: int) -> set[str]:
            axes = (knob.axes(breadth) for knob in row.hyperparameters)
            return {k for a in axes for k, axis in a.items() if not isinstance(axis, Fixed)}

        assert searched(LR) <= searched(MAIN) <= searched(FINE)

    def test_a_decoded_value_reaches_a_constructor(self, row: OptimizerRow) -> None:
        for knob in row.hyperparameters:
            if knob.name == "matrices":  # which says what a constructor takes
                continue
            point = row.decode({knob.name: 0.123})
            given = [str(call) for call in row.calls(point)]
            assert any("0.123" in arguments for arguments in given)

    def test_its_key_is_its_name(self, row: OptimizerRow) -> None:
        assert OPTIMIZERS[row.name] is row


def test_an_optimizer_for_matrices_leaves_the_rest_to_its_helper() -> None:
    row = OPTIMIZERS["muon"]
    matrices, others = row.calls(row.decode({"lr": 0.02, "adamw_lr": 0.003}))
    assert (matrices.parameters, others.parameters) == ("hidden", "outer")
    assert (matrices.target, others.target) == ("torch.optim.Muon", "torch.optim.AdamW")
    assert matrices.arguments["lr"] == 0.02
    assert others.arguments == {"lr": 0.003}


def test_muon_takes_all_matrices_where_it_is_told_to() -> None:
    row = OPTIMIZERS["muon"]
    calls = row.calls(row.decode({"matrices": "all"}))
    assert [call.parameters for call in calls] == ["matrices", "others"]
    assert not any("matrices" in call.arguments for call in calls)


def test_betas_are_given_as_a_pair() -> None:
    (call,) = OPTIMIZERS["adam"].calls(OPTIMIZERS["adam"].decode({"one_minus_beta1": 0.25}))
    assert call.arguments["betas"] == (0.75, 0.999)
    assert not {"beta1", "beta2"} & call.arguments.keys()


def test_an_optimizer_of_sparse_gradients_leaves_the_rest_to_its_helper() -> None:
    row = OPTIMIZERS["sparse_adam"]
    sparse, dense = row.calls(row.decode({"lr": 0.02, "adam_lr": 0.003}))
    assert (sparse.parameters, dense.parameters) == ("sparse", "dense")
    assert (sparse.target, dense.target) == ("torch.optim.SparseAdam", "torch.optim.Adam")
    assert sparse.arguments["lr"] == 0.02
    assert dense.arguments == {"lr": 0.003}


def test_torch_s_none_is_spelled_as_text() -> None:
    row = OPTIMIZERS["lbfgs"]
    searched = [
        row.calls(row.decode({"line_search_fn": name})) for name in ("none", "strong_wolfe")
    ]
    given = [call.arguments["line_search_fn"] for (call,) in searched]
    assert given == [None, "strong_wolfe"]


def test_lbfgs_alone_needs_a_closure_and_takes_no_groups() -> None:
    assert [row.name for row in OPTIMIZERS.values() if row.closure] == ["lbfgs"]
    assert [row.name for row in OPTIMIZERS.values() if not row.groups] == ["lbfgs"]


def test_yellowfin_starts_slowly_by_its_window() -> None:
    for window in (10, 50):
        for name in ("yellowfin", "lookahead(yellowfin)"):
            row = OPTIMIZERS[name]
            assert row.slow_start(row.decode({"window": window})) == 10 * window
    assert OPTIMIZERS["adam"].slow_start(OPTIMIZERS["adam"].decode({})) == 0


def test_both_halves_of_an_optimizer_look_ahead() -> None:
    row = OPTIMIZERS["lookahead(muon)"]
    matrices, others = row.calls(row.decode({"lr": 0.02, "adamw_lr": 0.003, "lookahead_k": 7}))
    assert (matrices.parameters, others.parameters) == ("hidden", "outer")
    assert (matrices.arguments["lr"], others.arguments["lr"]) == (0.02, 0.003)
    for call in (matrices, others):
        assert call.wrapper == Call("tuner.optim.Lookahead", {"k": 7, "alpha": 0.5})


def test_knobs_of_lookahead_are_told_from_those_within() -> None:
    row = OPTIMIZERS["lookahead(asgd)"]
    [call] = row.calls(row.decode({"alpha": 0.6, "lookahead_alpha": 0.7}))
    assert call.arguments["alpha"] == 0.6
    assert call.wrapper is not None
    assert call.wrapper.arguments["alpha"] == 0.7


def test_an_optimizer_that_must_know_how_long_it_trains_is_told() -> None:
    row = OPTIMIZERS["ranger21"]
    [call] = row.calls(row.decode({}), steps=300)
    assert call.arguments["num_iterations"] == 300


class TestCatalog:
    def test_it_lists_rows_and_finds_what_names_compose(self) -> None:
        assert len(OPTIMIZERS) == len(list(OPTIMIZERS)) == len(set(OPTIMIZERS))
        assert not any("(" in name or ":" in name for name in OPTIMIZERS)
        assert OPTIMIZERS["lookahead(pytorch_optimizer:Tiger)"].wrapper is not None

    @pytest.mark.parametrize("name", list(OPTIMIZERS))
    def test_lookahead_is_around_any_that_it_can_follow(self, name: str) -> None:
        row = OPTIMIZERS[name]
        around = f"lookahead({name})"
        assert (around in OPTIMIZERS) == (
            row.wrapper is None and not row.closure and not row.averages
        )

    def test_a_package_s_name_may_be_written_in_any_case(self) -> None:
        row = OPTIMIZERS["pytorch_optimizer:Yogi"]
        for name in ("pytorch_optimizer:yogi", "pytorch_optimizer:YOGI"):
            assert OPTIMIZERS[name] is row

    def test_one_with_a_row_of_its_own_is_searched_as_that(self) -> None:
        lion, named = OPTIMIZERS["lion"], OPTIMIZERS["pytorch_optimizer:lion"]
        assert named.hyperparameters == lion.hyperparameters
        assert named.name == "pytorch_optimizer:Lion"

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("adm", "did you mean 'adam'?"),
            ("Adam", "did you mean 'adam'?"),
            ("lookahed(sgd)", "did you mean 'lookahead(sgd)'?"),
            ("lookahead(smg)", "lookahead wraps an optimizer, not 'smg': did you mean 'sgd'?"),
            ("lookahead(lookahead(sgd))", "looks ahead already: write 'lookahead(sgd)'"),
            ("lookahead(ranger)", "ranger looks ahead already"),
            ("lookahead(lbfgs)", "lbfgs takes many steps inside one of its own"),
            ("lookahead(schedulefree_sgd)", "averages its iterates by itself"),
            ("lookahead(pytorch_optimizer:splus)", "averages its iterates by itself"),
            ("lookahead()", "not '': choose from sgd,"),
            ("lookahead(" * 5000, "choose from"),
            ("lookahead(" * 5000 + ")", "looks ahead already"),
            ("pytorch_optimizer:Lio", "pytorch-optimizer has no 'Lio': did you mean 'Lion'?"),
            ("pytorch_optimizer:adamw", "it is torch's own: write 'adamw'"),
            ("pytorch_optimizer:SAM", "SAM cannot be used: it takes two steps"),
            ("yogi", "did you mean 'pytorch_optimizer:Yogi'?"),
            ("sophia", "SophiaH of pytorch-optimizer cannot be used: it differentiates gradients"),
            ("", "choose from sgd,"),
        ],
    )
    def test_what_is_no_optimizer_is_refused_with_the_reason(self, name: str, said: str) -> None:
        assert name not in OPTIMIZERS
        assert said in suggest(name, OPTIMIZERS)
        with pytest.raises(KeyError):
            OPTIMIZERS[name]


class TestPackage:
    def test_its_table_has_everything_that_the_package_has(self) -> None:
        known = {c.__name__ for c in pytorch_optimizer.optimizer.OPTIMIZERS.values()}
        assert known <= PACKAGE.keys() | REFUSED.keys()
        assert not PACKAGE.keys() & REFUSED.keys()
        assert all(hasattr(pytorch_optimizer, name) for name in (*PACKAGE, *REFUSED))

    @pytest.mark.parametrize("name", list(PACKAGE))
    def test_its_defaults_are_the_package_s_own(self, name: str) -> None:
        own = defaults_of(f"pytorch_optimizer.{name}")
        table = PACKAGE[name]
        assert table.lr == own["lr"]
        assert table.weight_decay == own.get("weight_decay")
        assert (table.momentum or 0) == own.get("momentum", 0)
        searched = table.betas or own.get("betas", ())
        assert searched == own.get("betas", ())
        two = len(searched) == 2 and all(0 < beta < 1 for beta in searched)
        assert (table.betas is not None) == two

    @pytest.mark.parametrize("name", list(PACKAGE))
    def test_it_trains_and_continues_from_a_checkpoint(self, name: str) -> None:
        row = OPTIMIZERS[f"pytorch_optimizer:{name}"]
        models = network(), network()
        whole, resumed = (
            build_optimizer(row.name, row.decode({}), model, total_steps=20) for model in models
        )
        assert (hasattr(whole, "train") and hasattr(whole, "eval")) == row.switches
        torch.manual_seed(0)  # some draw at random
        train(models[0], whole, 7)
        models[1].load_state_dict(models[0].state_dict())
        resumed.load_state_dict(through_disk(whole.state_dict()))
        for model, optimizer in zip(models, (whole, resumed), strict=True):
            torch.manual_seed(1)
            train(model, optimizer, 4)
        for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
            # Kernels add up in another order where memory is aligned otherwise; Kron shows it.
            torch.testing.assert_close(a, b)
            assert a.isfinite().all()
