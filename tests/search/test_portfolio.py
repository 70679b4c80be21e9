"""The first trials of a study: entries of the portfolio, fitted to the study's space."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.domain.domain_strategies import is_within, spec_trees
from tests.search.studies import make_spec
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.schedules import SCHEDULES
from tuner.domain.space import walk
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Proposal, decode
from tuner.search.portfolio import Entry, fit_entry, fit_portfolio, load_portfolio
from tuner.search.tried import key_of

ADAM: Entry = {
    "optimizer": "adam",
    "schedule": "linear",
    "adam": {"lr": 0.02, "beta1": 0.8, "weight_decay": 0.0},
    "linear": {"warmup": 0.05, "final_ratio": 0.01},
}


@st.composite
def entries(draw: st.DrawFn, optimizers: list[str]) -> Entry:
    """Draws an entry of one of some optimizers: only its learning rate, or its default."""
    optimizer = draw(st.sampled_from(optimizers))
    own = {OPTIMIZERS[optimizer].rate: draw(st.sampled_from((1e-9, 0.01, 1.0, 1e4)))}
    entry: dict[str, Any] = {
        "optimizer": optimizer,
        "schedule": draw(st.sampled_from([*SCHEDULES])),
    }
    return entry | draw(st.sampled_from(({}, {optimizer: own})))


def check_point(spec: StudySpec, point: dict[str, Any]) -> None:
    """Checks that a point has the axes that a drawn one has, and values that lie on them."""
    assert walk(spec, lambda name, axis: point[name]) == point
    axes = spec.axes()
    assert all(is_within(value, axes[name]) for name, value in point.items())
    decode(spec, Proposal(point))


@settings(max_examples=100)
@given(st.data(), spec_trees())
def test_any_entry_fits_any_space_in_which_its_optimizer_competes(
    data: st.DataObject, tree: dict[str, Any]
) -> None:
    spec = StudySpec.model_validate(tree).resolve()
    check_point(spec, fit_entry(spec, data.draw(entries(list(spec.space.optimizers)))))


@settings(max_examples=100)
@given(st.data(), spec_trees())
def test_openings_are_points_of_competing_optimizers_no_two_equal_at_most_a_third_of_the_trials(
    data: st.DataObject, tree: dict[str, Any]
) -> None:
    spec = StudySpec.model_validate(tree).resolve()
    drawn = data.draw(st.lists(entries(sorted(OPTIMIZERS)), max_size=12))
    points = fit_portfolio(spec, drawn)
    for point in points:
        check_point(spec, point)
    assert len({key_of(point) for point in points}) == len(points) <= spec.budget.trials // 3
    competing = [entry for entry in drawn if entry["optimizer"] in spec.space.optimizers]
    fitted = {key_of(fit_entry(spec, entry)): None for entry in competing}
    assert [key_of(point) for point in points] == list(fitted)[: spec.budget.trials // 3]


@pytest.mark.parametrize("trials", [1, 3, 12, 60])
@pytest.mark.parametrize("breadth", [1, 2, 3])
def test_what_ships_with_tuner_fits_the_usual_study(trials: int, breadth: int) -> None:
    spec = make_spec(budget={"trials": trials, "steps": 100}, space={"breadth": breadth})
    points = fit_portfolio(spec, load_portfolio())
    assert len(points) == min(trials // 3, len(load_portfolio()))
    for point in points:
        check_point(spec, point)


def test_every_entry_that_ships_names_what_the_catalog_knows() -> None:
    for entry in load_portfolio():
        for table in ("optimizer", "schedule"):
            rows: Any = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES}[table]
            known = {one.name for one in rows[entry[table]].hyperparameters}
            assert entry.get(entry[table], {}).keys() <= known
        assert entry.keys() <= {"optimizer", "schedule", entry["optimizer"], entry["schedule"]}


def test_an_entry_is_taken_as_it_is_where_the_space_holds_it() -> None:
    point = fit_entry(make_spec(), ADAM)
    config = decode(make_spec(), Proposal(point))
    assert (config.optimizer, config.schedule) == ("adam", "linear")
    own = OPTIMIZERS["adam"].decode({}) | {"lr": 0.02, "beta1": pytest.approx(0.8)}
    assert config.optimizer_values == own
    assert config.schedule_values == {"warmup": 0.05, "final_ratio": 0.01}
    assert point["adam.use_weight_decay"] is False
    assert "adam.weight_decay" not in point


@pytest.mark.parametrize(
    ("searched", "taken"),
    [
        (["linear", "cosine"], "linear"),
        (["step", "cosine"], "cosine"),
        (["constant", "stable_decay"], "stable_decay"),
        (["constant"], "constant"),
        (["plateau", "constant"], "plateau"),
    ],
)
def test_a_schedule_that_ends_low_stands_in_for_one_that_is_not_searched(
    searched: list[str], taken: str
) -> None:
    spec = make_spec(space={"optimizers": ["adam"], "schedules": searched, "breadth": 3})
    point = fit_entry(spec, ADAM)
    assert point["schedule"] == taken
    assert point["adam.lr"] == 0.02
    if taken != "linear":
        values = SCHEDULES[taken].decode({})
        axes = spec.schedule[taken]
        searched_values = decode(spec, Proposal(point)).schedule_values
        for key, value in values.items():
            assert searched_values[key] == value or not is_within(value, axes[key])


def test_a_narrower_range_has_the_nearest_value() -> None:
    spec = make_spec(
        optimizer={
            "adam": {
                "lr": {"low": 1e-4, "high": 1e-3, "log": True},
                "beta1": {"choices": [0.9, 0.99]},
                "weight_decay": {"low": 1e-4, "high": 1e-2, "log": True},
                "use_weight_decay": True,
                "eps": 1e-4,
            }
        }
    )
    values = decode(spec, Proposal(fit_entry(spec, ADAM))).optimizer_values
    expected = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-4, "weight_decay": 1e-4}
    assert values == pytest.approx(expected)


def test_entries_that_agree_once_fitted_are_one() -> None:
    spec = make_spec(space={"optimizers": ["adam"], "schedules": ["cosine"], "breadth": 1})
    other = {**ADAM, "schedule": "stable_decay", "adam": {"lr": 0.02, "beta1": 0.7}}
    assert len(fit_portfolio(spec, (ADAM, other))) == 1


def test_parameter_groups_train_as_the_rest_as_far_as_they_may() -> None:
    group = {
        "name": "head",
        "match": "head.*",
        "lr_multiplier": {"low": 0.1, "high": 10, "log": True},
        "momentum": {"low": 0.0, "high": 0.95},
        "weight_decay": {"choices": [0.001, 0.1]},
    }
    spec = make_spec(train={"groups": [group]})
    [found] = decode(spec, Proposal(fit_entry(spec, ADAM))).groups
    assert (found.lr_multiplier, found.momentum, found.weight_decay) == (1.0, 0.8, 0.001)


def test_a_network_trains_as_the_others_as_far_as_its_ranges_allow() -> None:
    lr = {"low": 1e-5, "high": 0.01, "log": True}
    beta = {"low": 0.1, "high": 0.5}
    spec = make_spec(network={"judge": {"adam": {"lr": lr, "one_minus_beta1": beta}}})
    config = decode(spec, Proposal(fit_entry(spec, ADAM)))
    assert config.networks == {"judge": {"lr": 0.01, "beta1": pytest.approx(0.8)}}


def test_batch_size_average_and_momentum_warmup_are_filled_in() -> None:
    spec = make_spec(
        train={
            "batch_size": {"choices": [64, 16, "full"]},
            "average": {"choices": ["ema", "none"]},
            "momentum_warmup": {"low": 0.0, "high": 0.4},
        }
    )
    point = fit_entry(spec, ADAM)
    assert (point["batch_size"], point["average"], point["momentum_warmup"]) == (64, "none", 0.0)


def test_where_all_trials_average_so_do_the_first_by_the_average_s_own_defaults() -> None:
    spec = make_spec(train={"average": {"choices": ["ema", "swa"]}})
    point = fit_entry(spec, ADAM)
    check_point(spec, point)
    assert point["average"] == "ema"


@pytest.mark.parametrize("schedule", ["one_cycle", "constant"])
@pytest.mark.parametrize("sampler", ["qmc", "gp", "cmaes"])
def test_samplers_of_one_space_get_every_parameter_of_theirs(sampler: str, schedule: str) -> None:
    spec = make_spec(
        space={"optimizers": ["momentum"], "schedules": [schedule], "breadth": 3},
        search={"sampler": sampler},
        optimizer={"momentum": {"use_weight_decay": True}},
        schedule={schedule: {"warmup": 0.1}} if schedule == "constant" else {},
        train={"momentum_warmup": {"low": 0, "high": 0.4}} if schedule == "constant" else {},
    )
    check_point(spec, fit_entry(spec, {"optimizer": "momentum", "schedule": schedule}))
