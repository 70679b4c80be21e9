from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from pydantic import ValidationError

from tests.domain.domain_strategies import spec_trees
from tuner.domain.budget import Budget
from tuner.domain.catalog.dimensions import Choice, Fixed, Float
from tuner.domain.catalog.hyperparameters import FINE, LR, MAIN
from tuner.domain.catalog.optimizers import OPTIMIZERS, USUAL_OPTIMIZERS
from tuner.domain.catalog.schedules import SCHEDULES, USUAL_SCHEDULES
from tuner.domain.samplers import PRUNERS, SAMPLERS
from tuner.domain.spec import StudySpec
from tuner.domain.study_file import parse_spec
from tuner.errors import SpecError

STUDY = {"name": "s", "workload": "models.digits:Digits"}
JOINT_SAMPLERS = [row.name for row in SAMPLERS.values() if row.joint]


def spec_of(**tables: Any) -> StudySpec:
    return StudySpec.model_validate({"study": STUDY, **tables})


def test_what_is_left_out_has_a_default() -> None:
    spec = spec_of()
    assert (spec.study.metric, spec.study.direction) == ("val_loss", "minimize")
    assert (spec.budget.trials, spec.budget.epochs, spec.budget.steps) == (60, 10, None)
    search = spec.search
    assert (search.sampler, search.pruner, search.seed) == ("mixture", "halving", 0)
    assert (search.portfolio, search.spare) == (True, 1)
    assert spec.space.optimizers == USUAL_OPTIMIZERS
    assert spec.space.schedules == USUAL_SCHEDULES
    assert spec.train.batch_size == Fixed(value=128)
    assert (spec.train.grad_clip, spec.train.precision) == (None, "float32")
    assert (spec.train.groups, spec.train.no_decay_on_biases_and_norms) == ((), False)
    assert spec.train.schedule_by == "step"


@pytest.mark.parametrize(
    ("length", "steps"),
    [
        ({"steps": 33}, 33),
        ({"epochs": 2}, 62),
        ({"epochs": 0.5}, 16),
        ({"epochs": 0.001}, 1),
        ({"examples": 3200}, 100),
        ({"examples": 1}, 1),
    ],
)
def test_a_full_trial_has_the_steps_of_its_length(length: dict[str, Any], steps: int) -> None:
    assert Budget.model_validate(length).full_steps(epoch_steps=31, batch_size=32) == steps


@settings(max_examples=50)
@given(spec_trees())
def test_resolving_twice_changes_nothing(tree: dict[str, Any]) -> None:
    resolved = StudySpec.model_validate(tree).resolve()
    assert repr(resolved.resolve()) == repr(resolved)


@settings(max_examples=50)
@given(spec_trees())
def test_a_resolved_spec_survives_json(tree: dict[str, Any]) -> None:
    resolved = StudySpec.model_validate(tree).resolve()
    stored = json.loads(json.dumps(resolved.to_json()))
    assert repr(parse_spec(stored, origin="database")) == repr(resolved)


@settings(max_examples=50)
@given(spec_trees())
def test_an_unresolved_spec_survives_json(tree: dict[str, Any]) -> None:
    spec = StudySpec.model_validate(tree)
    assert repr(parse_spec(json.loads(json.dumps(spec.to_json())), origin="x")) == repr(spec)


@settings(max_examples=50)
@given(spec_trees())
def test_a_resolved_spec_has_every_hyperparameter_of_every_choice(tree: dict[str, Any]) -> None:
    resolved = StudySpec.model_validate(tree).resolve()
    assert tuple(resolved.optimizer) == resolved.space.optimizers
    assert tuple(resolved.schedule) == resolved.space.schedules
    for rows, table in ((OPTIMIZERS, resolved.optimizer), (SCHEDULES, resolved.schedule)):
        for name, axes in table.items():
            assert all(set(knob.keys) & axes.keys() for knob in rows[name].hyperparameters)


@pytest.mark.parametrize(
    ("trials", "optimizers", "breadth"),
    [
        (4, ["adam"], LR),
        (5, ["adam"], MAIN),
        (24, ["adam"], MAIN),
        (25, ["adam"], FINE),
        (49, ["adam", "sgd"], MAIN),
        (50, ["adam", "sgd"], FINE),
    ],
)
def test_the_breadth_follows_the_trials_an_optimizer_gets(
    trials: int, optimizers: list[str], breadth: int
) -> None:
    spec = spec_of(budget={"trials": trials}, space={"optimizers": optimizers})
    assert spec.resolve().space.breadth == breadth


def test_a_given_breadth_outranks_the_budget_and_the_caller() -> None:
    spec = spec_of(budget={"trials": 1000}, space={"optimizers": ["adam"], "breadth": 1})
    assert spec.resolve(3).space.breadth == 1


def test_the_caller_s_breadth_outranks_the_budget() -> None:
    assert spec_of(budget={"trials": 1}).resolve(3).space.breadth == 3


def test_an_override_replaces_the_catalog_s_range() -> None:
    spec = spec_of(optimizer={"adam": {"lr": {"low": 1e-5, "high": 1e-2, "log": True}}})
    assert spec.resolve().optimizer["adam"]["lr"] == Float(low=1e-5, high=1e-2, log=True)


def test_an_override_of_the_value_removes_its_complement_and_its_switch() -> None:
    spec = spec_of(optimizer={"adam": {"beta1": 0.8, "weight_decay": 1e-3}})
    axes = spec.resolve(FINE).optimizer["adam"]
    assert axes["beta1"] == Fixed(value=0.8)
    assert not {"one_minus_beta1", "use_weight_decay"} & axes.keys()


def test_a_switch_turned_on_keeps_the_range_of_its_value() -> None:
    spec = spec_of(optimizer={"adam": {"use_weight_decay": True}})
    axes = spec.resolve(FINE).optimizer["adam"]
    assert axes["use_weight_decay"] == Fixed(value=True)
    assert isinstance(axes["weight_decay"], Float)


@pytest.mark.parametrize("value", ["yes", 3, 0.5, {"low": 0, "high": 1}, {"choices": [0, 1]}])
def test_a_switch_takes_true_and_false_alone(value: object) -> None:
    with pytest.raises(ValidationError, match="true or false"):
        spec_of(optimizer={"adam": {"use_weight_decay": value}})


@pytest.mark.parametrize("value", [True, False, {"choices": [False, True]}])
def test_a_switch_may_be_set(value: object) -> None:
    spec = spec_of(optimizer={"adam": {"use_weight_decay": value}})
    assert spec.to_json()["optimizer"]["adam"]["use_weight_decay"] == value


def test_an_override_as_a_whole_number_is_read_as_a_real_one() -> None:
    spec = spec_of(optimizer={"adam": {"lr": 1}, "sgd": {"lr": {"low": 1, "high": 2}}}).resolve()
    assert repr(spec.optimizer["adam"]["lr"]) == repr(Fixed(value=1.0))
    assert repr(spec.optimizer["sgd"]["lr"]) == repr(Float(low=1.0, high=2.0))


@pytest.mark.parametrize("table", ["optimizer", "schedule"])
def test_overrides_of_what_is_not_chosen_are_refused(table: str) -> None:
    name = {"optimizer": "adam", "schedule": "step"}[table]
    knob = {"optimizer": "lr", "schedule": "gamma"}[table]
    space = {"optimizers": ["sgd"], "schedules": ["cosine"]}
    with pytest.raises(ValidationError, match=rf"\[{table}.{name}\] is set, but {name} is not in"):
        spec_of(space=space, **{table: {name: {knob: 0.1}}})


def test_a_value_and_its_complement_together_are_refused() -> None:
    with pytest.raises(ValidationError, match="give beta1 or one_minus_beta1, not both"):
        spec_of(optimizer={"adam": {"beta1": 0.9, "one_minus_beta1": 0.1}})


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "32", {"choices": [32, 0]}, {"choices": [1.0]}])
def test_a_batch_size_is_a_whole_number_above_zero(size: object) -> None:
    with pytest.raises(ValidationError, match="whole number above 0"):
        spec_of(train={"batch_size": size})


def test_a_batch_size_may_be_a_choice() -> None:
    spec = spec_of(train={"batch_size": {"choices": [32, 64]}})
    assert spec.train.batch_size == Choice(choices=(32, 64))


@settings(max_examples=50)
@given(spec_trees())
def test_a_spec_does_not_differ_from_itself(tree: dict[str, Any]) -> None:
    spec = StudySpec.model_validate(tree).resolve()
    assert spec.differences(StudySpec.model_validate(tree).resolve()) == {}


@settings(max_examples=50)
@given(spec_trees(), spec_trees())
def test_differences_are_the_same_from_the_other_side(
    mine: dict[str, Any], theirs: dict[str, Any]
) -> None:
    a, b = StudySpec.model_validate(mine).resolve(), StudySpec.model_validate(theirs).resolve()
    there = {key: (here, there) for key, (there, here) in b.differences(a).items()}
    assert a.differences(b) == there


def test_differences_name_each_key_with_both_values() -> None:
    a = spec_of(budget={"trials": 10}, optimizer={"adam": {"lr": 0.1}})
    b = spec_of(budget={"trials": 20, "steps": 5}, optimizer={"adam": {"lr": {"choices": [0.2]}}})
    assert a.differences(b) == {
        "budget.trials": (10, 20),
        "budget.epochs": (10, None),
        "budget.steps": (None, 5),
        "optimizer.adam.lr": (0.1, {"choices": [0.2]}),
    }


def test_another_budget_leaves_the_rest_as_it_was() -> None:
    spec = spec_of().resolve()
    assert spec.with_budget(Budget(trials=5)).differences(spec) == {"budget.trials": (5, 60)}


# Samplers and pruners

JOINT: dict[str, Any] = {
    "space": {"optimizers": ["momentum"], "schedules": ["constant"], "breadth": 3},
    "optimizer": {"momentum": {"use_weight_decay": True}},
    "schedule": {"constant": {"warmup": 0.0}},
}
SWITCHED = JOINT | {"optimizer": {}}
CHOSEN = JOINT | {"schedule": {"constant": {"warmup": {"choices": [0.0, 0.1]}}}}


def sampled(sampler: str, **tables: Any) -> StudySpec:
    return spec_of(search={"sampler": sampler}, **tables)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_takes_a_space_that_all_trials_share(sampler: str) -> None:
    assert sampled(sampler, **JOINT).resolve().search.sampler == sampler


@pytest.mark.parametrize("sampler", ["tpe", "random", "optuna.samplers:GPSampler"])
@pytest.mark.parametrize("tables", [{}, SWITCHED, CHOSEN])
def test_a_sampler_that_takes_conditions_takes_every_space(
    sampler: str, tables: dict[str, Any]
) -> None:
    assert sampled(sampler, **tables).resolve().search.sampler == sampler


@pytest.mark.parametrize("sampler", JOINT_SAMPLERS)
@pytest.mark.parametrize(
    ("space", "axis", "remedy"),
    [
        ({"optimizers": ["sgd", "momentum"]}, "sgd.lr", "one optimizer in space.optimizers"),
        ({"schedules": ["constant", "step"]}, "constant.warmup", "one schedule in space.schedules"),
    ],
)
def test_a_sampler_of_one_space_refuses_several_branches(
    sampler: str, space: dict[str, Any], axis: str, remedy: str
) -> None:
    optimizers = {"optimizers": ["momentum"], "schedules": ["constant"], "breadth": 3} | space
    with pytest.raises(SpecError, match=remedy) as refusal:
        sampled(sampler, space=optimizers).resolve()
    assert axis in str(refusal.value)
    assert f"search.sampler = {sampler!r}" in str(refusal.value)


@pytest.mark.parametrize("sampler", JOINT_SAMPLERS)
def test_a_sampler_of_one_space_refuses_a_searched_switch(sampler: str) -> None:
    with pytest.raises(SpecError, match=r"fix optimizer\.momentum\.use_weight_decay to"):
        sampled(sampler, **SWITCHED).resolve()


@pytest.mark.parametrize("use", [True, False])
@pytest.mark.parametrize("sampler", JOINT_SAMPLERS)
def test_a_switch_that_is_fixed_is_no_condition(sampler: str, use: bool) -> None:
    tables = JOINT | {"optimizer": {"momentum": {"use_weight_decay": use}}}
    assert sampled(sampler, **tables).resolve().search.sampler == sampler


@pytest.mark.parametrize("sampler", ["qmc", "gp"])
def test_schedules_without_anything_to_search_are_a_choice_like_any_other(sampler: str) -> None:
    space = {"optimizers": ["momentum"], "schedules": ["constant", "cosine"], "breadth": 1}
    assert sampled(sampler, space=space).resolve().search.sampler == sampler


def test_cma_es_refuses_choices() -> None:
    with pytest.raises(SpecError, match=r"not choices such as constant\.warmup"):
        sampled("cmaes", **CHOSEN).resolve()
    batches = JOINT | {"train": {"batch_size": {"choices": [32, 64]}}}
    with pytest.raises(SpecError, match="not choices such as batch_size"):
        sampled("cmaes", **batches).resolve()


def test_cma_es_needs_two_ranges() -> None:
    space = {"optimizers": ["momentum"], "schedules": ["constant"], "breadth": 1}
    with pytest.raises(
        SpecError, match=r"at least two ranges to search, and there is momentum\.lr"
    ):
        sampled("cmaes", space=space).resolve()


@pytest.mark.parametrize(("key", "names"), [("sampler", SAMPLERS), ("pruner", PRUNERS)])
def test_samplers_and_pruners_are_named_or_imported(key: str, names: tuple[str, ...]) -> None:
    for name in (*names, "mysearch:build", "optuna.samplers:TPESampler"):
        assert getattr(spec_of(search={key: name}).search, key) == name
    for name in ("", "anything", "mysearch:", ":build", "my search:build"):
        with pytest.raises(ValidationError, match="neither an import string"):
            spec_of(search={key: name})


# Parameter groups

BODY = {"name": "body", "match": "body.*", "lr_multiplier": {"low": 0.01, "high": 1, "log": True}}
HEAD = {"name": "head", "match": "head.*", "weight_decay": 0.1}


def test_what_a_group_searches_is_an_axis_of_every_trial() -> None:
    spec = spec_of(train={"groups": [BODY, HEAD]}).resolve()
    assert set(spec.root_axes()) == {"optimizer", "schedule", "groups.body.lr_multiplier"}
    assert parse_spec(json.loads(json.dumps(spec.to_json())), origin="database") == spec


def test_two_groups_of_one_name_are_refused() -> None:
    with pytest.raises(ValidationError, match="two groups share a name"):
        spec_of(train={"groups": [BODY, BODY]})


@pytest.mark.parametrize("train", [{"groups": [HEAD]}, {"no_decay_on_biases_and_norms": True}])
def test_an_optimizer_without_groups_is_refused_where_there_are_some(train: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="lbfgs takes all parameters as one group: leave it"):
        spec_of(train=train, space={"optimizers": ["adam", "lbfgs"]})
    assert spec_of(train=train, space={"optimizers": ["adam", "muon"]}).train.groups is not None


@pytest.mark.parametrize("batch_size", ["full", {"choices": [16, 32]}])
def test_steps_of_an_epoch_are_of_one_batch_size(batch_size: Any) -> None:
    budget = {"epochs": 2, "epoch_steps": 100}
    assert spec_of(budget=budget).budget.epoch_steps == 100
    with pytest.raises(ValidationError, match=r"run\.measure\(examples // run\.batch_size\)"):
        spec_of(budget=budget, train={"batch_size": batch_size})


def test_a_schedule_changes_by_step_or_by_epoch() -> None:
    assert spec_of(train={"schedule_by": "epoch"}).train.schedule_by == "epoch"
    with pytest.raises(ValidationError, match="'step' or 'epoch'"):
        spec_of(train={"schedule_by": "batch"})


def composed(*names: str, **tables: Any) -> StudySpec:
    return spec_of(space={"optimizers": list(names), "schedules": ["constant"]}, **tables)


def test_names_may_compose_optimizers_and_their_tables_too() -> None:
    names = ("adam", "lookahead(sgd)", "ranger", "pytorch_optimizer:Lion")
    own = {"lookahead(sgd)": {"lookahead_k": 7}, "pytorch_optimizer:Lion": {"lr": 1e-3}}
    resolved = composed(*names, optimizer=own).resolve(breadth=2)
    assert resolved.space.optimizers == names
    assert resolved.optimizer["lookahead(sgd)"]["lookahead_k"] == Fixed(value=7)
    assert isinstance(resolved.optimizer["lookahead(sgd)"]["lookahead_alpha"], Float)
    assert resolved.optimizer["pytorch_optimizer:Lion"]["lr"] == Fixed(value=1e-3)
    assert StudySpec.model_validate(resolved.to_json()) == resolved


def test_a_package_s_optimizer_is_one_however_it_is_written() -> None:
    spec = composed("pytorch_optimizer:LION", optimizer={"pytorch_optimizer:lion": {"lr": 0.1}})
    assert spec.space.optimizers == ("pytorch_optimizer:Lion",)
    assert list(spec.optimizer) == ["pytorch_optimizer:Lion"]
    with pytest.raises(ValidationError, match="names one optimizer twice"):
        composed("pytorch_optimizer:lion", "pytorch_optimizer:Lion")


@pytest.mark.parametrize("name", ["lookahead(lbfgs)", "lookahead(smg)", "sophia"])
def test_what_composes_no_optimizer_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="there is no optimizer"):
        composed("sgd", name)


@pytest.mark.parametrize("name", ["prodigy", "dadapt_adam", "lookahead(prodigy)"])
@pytest.mark.parametrize(("until", "refused"), [(0.0, False), (0.5, True), (1.0, False)])
def test_what_estimates_one_distance_takes_no_group_in_mid_run(
    name: str, until: float, refused: bool
) -> None:
    train = {"groups": [{"name": "body", "match": "0.*", "frozen_until": until}]}
    if refused:
        with pytest.raises(ValidationError, match="body cannot join in mid-run: leave"):
            composed(name, train=train)
    else:
        composed(name, train=train)
