"""The [train] table, and what its axes add to a search space."""

from __future__ import annotations

from typing import Any

import pytest

from tuner.domain.catalog.averages import AVERAGES, start_step
from tuner.domain.catalog.dimensions import Choice, Dimension, Fixed, Value
from tuner.domain.space import walk
from tuner.domain.spec import StudySpec
from tuner.domain.study_file import parse_spec
from tuner.domain.trials import Proposal, decode, default_proposals
from tuner.errors import SpecError

STUDY = {"name": "s", "workload": "models.digits:Digits"}


def spec_of(**tables: Any) -> StudySpec:
    space = {"optimizers": ["adam"], "schedules": ["constant"], "breadth": 2}
    return parse_spec({"study": STUDY, "space": space, **tables}, origin="test").resolve()


def first(name: str, axis: Dimension) -> Value:
    match axis:
        case Choice():
            return axis.choices[0]
        case Fixed():
            raise AssertionError(name)
        case _:
            return axis.low


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "whole", {"choices": [32, "half"]}])
def test_a_batch_size_is_a_count_or_full(size: Any) -> None:
    with pytest.raises(SpecError, match=r'a whole number above 0, "full", or'):
        spec_of(train={"batch_size": size})


def test_batch_sizes_may_be_mixed() -> None:
    spec = spec_of(train={"batch_size": {"choices": ["full", 1, 32]}})
    assert spec.train.batch_sizes == ("full", 1, 32)
    params: dict[str, Value] = {"optimizer": "adam", "schedule": "constant", "batch_size": "full"}
    assert decode(spec, Proposal(params)).batch_size == "full"


@pytest.mark.parametrize(
    "average", ["mean", 1, {"choices": ["ema", "emma"]}, {"low": 0, "high": 1}]
)
def test_an_average_is_one_of_the_catalog_s(average: Any) -> None:
    with pytest.raises(SpecError, match='average is one of "none", "ema", "swa"'):
        spec_of(train={"average": average})


def test_a_study_that_averages_nothing_has_no_such_axes() -> None:
    axes = spec_of().axes()
    assert not [name for name in axes if name.partition(".")[0] in (*AVERAGES, "average")]


def test_a_spec_stored_before_averages_existed_is_the_same_study() -> None:
    spec = spec_of()
    stored = spec.to_json()
    del stored["average"]
    for key in ("average", "accumulate", "momentum_warmup"):
        del stored["train"][key]
    assert not StudySpec.model_validate(stored).differences(spec)


def test_a_walk_draws_only_what_its_average_has() -> None:
    spec = spec_of(train={"average": {"choices": ["none", "ema", "swa"]}})

    def walk_with(average: str) -> set[str]:
        params = walk(spec, lambda name, axis: average if name == "average" else first(name, axis))
        return {name for name in params if name.partition(".")[0] in AVERAGES}

    assert walk_with("none") == set()
    assert walk_with("ema") == {"ema.start", "ema.interval", "ema.one_minus_decay"}
    assert walk_with("swa") == {"swa.start", "swa.interval"}


def test_an_average_is_decoded_to_torch_s_values_and_shown() -> None:
    spec = spec_of(train={"average": {"choices": ["none", "ema"]}}, average={"ema": {"start": 0.5}})
    point: dict[str, Value] = {"ema.interval": 3, "ema.one_minus_decay": 0.25, "average": "ema"}
    config = decode(spec, Proposal({"optimizer": "adam", "schedule": "constant", **point}))
    values = {"start": 0.5, "interval": 3, "decay": 0.75}
    assert (config.average, config.average_values) == ("ema", values)
    shown = {"average": "ema", "ema.start": 0.5, "ema.interval": 3, "ema.decay": 0.75}
    assert config.to_json().items() >= shown.items()


def test_an_average_s_table_needs_the_average() -> None:
    with pytest.raises(
        SpecError, match=r"\[average\.swa\] is set, but swa is not in train\.average"
    ):
        spec_of(train={"average": "ema"}, average={"swa": {"start": 0.5}})
    with pytest.raises(SpecError, match=r"average\.ema has no 'dekay': did you mean 'decay'"):
        spec_of(train={"average": "ema"}, average={"ema": {"dekay": 0.5}})
    with pytest.raises(SpecError, match="start is at least 0 and below 1"):
        spec_of(train={"average": "ema"}, average={"ema": {"start": 1.0}})


@pytest.mark.parametrize(
    ("average", "expected"),
    [
        ("none", "none"),
        ({"choices": ["ema", "none"]}, "none"),
        ({"choices": ["ema", "swa"]}, "ema"),
        ("swa", "swa"),
    ],
)
def test_a_default_averages_nothing_unless_the_file_leaves_no_choice(
    average: Any, expected: str
) -> None:
    spec = spec_of(train={"average": average})
    assert decode(spec, default_proposals(spec)[0]).average == expected


def test_a_sampler_of_one_space_is_refused_what_only_some_trials_have() -> None:
    with pytest.raises(SpecError, match=r"ema\.start.*name one average in train\.average"):
        spec_of(train={"average": {"choices": ["none", "ema"]}}, search={"sampler": "gp"})
    assert spec_of(train={"average": "ema"}, search={"sampler": "gp"}).average["ema"]


@pytest.mark.parametrize(("start", "total", "step"), [(0.0, 10, 1), (0.75, 2, 2), (0.999, 10, 10)])
def test_every_average_begins_within_the_trial(start: float, total: int, step: int) -> None:
    assert start_step({"start": start}, total) == step


# Momentum warmup.


@pytest.mark.parametrize("warmup", [-0.1, 1.5, "long", {"choices": [0, 2]}])
def test_a_momentum_warmup_is_a_fraction(warmup: Any) -> None:
    with pytest.raises(SpecError, match="momentum_warmup"):
        spec_of(train={"momentum_warmup": warmup})


@pytest.mark.parametrize(
    "space",
    [
        {"optimizers": ["sgd", "lbfgs"], "schedules": ["constant"]},
        {"optimizers": ["adam"], "schedules": ["one_cycle", "cyclic"]},
    ],
    ids=["no momentum", "a momentum that is cycled"],
)
def test_a_momentum_warmup_that_would_change_nothing_is_refused(space: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=r"train\.momentum_warmup would change nothing"):
        spec_of(space=space, train={"momentum_warmup": 0.1})
    assert spec_of(space=space, train={"momentum_warmup": 0})


@pytest.mark.parametrize(
    ("optimizer", "schedule", "warms"),
    [("adam", "cosine", True), ("adam", "one_cycle", False), ("sgd", "cosine", False)],
)
@pytest.mark.parametrize("axis", [{"choices": [0.5, 0.25]}, {"low": 0.5, "high": 0.75}, 0.5])
def test_only_a_momentum_of_its_own_is_warmed_up(
    optimizer: str, schedule: str, warms: bool, axis: Any
) -> None:
    space = {"optimizers": ["adam", "sgd"], "schedules": ["cosine", "one_cycle"]}
    spec = spec_of(space=space, train={"momentum_warmup": axis})
    chosen = {"optimizer": optimizer, "schedule": schedule}
    params = walk(spec, lambda name, axis: chosen.get(name) or first(name, axis))
    assert ("momentum_warmup" in params) == (warms and axis != 0.5)
    assert decode(spec, Proposal(params)).momentum_warmup == (0.5 if warms else 0.0)


@pytest.mark.parametrize(("low", "expected"), [(0.0, 0.0), (0.1, 0.1)])
def test_a_default_warms_up_as_little_as_the_file_lets_it(low: float, expected: float) -> None:
    spec = spec_of(train={"momentum_warmup": {"low": low, "high": 0.5}})
    assert decode(spec, default_proposals(spec)[0]).momentum_warmup == expected
