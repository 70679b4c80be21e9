"""What an earlier study teaches a new one."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.domain.domain_strategies import spec_trees, suggest_with
from tests.search.studies import make_spec, record_of
from tests.search.test_portfolio import check_point
from tuner.domain.catalog.dimensions import Choice, Float, Int, Value
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.space import walk
from tuner.domain.spec import StudySpec
from tuner.domain.trials import (
    DEFAULT,
    PORTFOLIO,
    WARM_START,
    Outcome,
    Proposal,
    TrialRecord,
    decode,
    default_proposal,
)
from tuner.domain.warm_start import WarmStart
from tuner.search import Proposer
from tuner.search.portfolio import choose_openings, load_portfolio
from tuner.search.warm_start import OPENINGS, Earlier, take_over

SPACE = {"optimizers": ["sgd", "adam", "muon"], "schedules": ["constant", "cosine"], "breadth": 1}


def earlier_of(*records: TrialRecord, **tables: Any) -> Earlier:
    return Earlier("earlier", make_spec(**{"space": SPACE} | tables), records)


def done(number: int, value: float | None, optimizer: str = "adam", **params: Value) -> TrialRecord:
    """Returns a complete trial; parameters are its optimizer's, by their names without it."""
    point: dict[str, Value] = {f"{optimizer}.{key}": own for key, own in params.items()}
    point |= {"optimizer": optimizer, "schedule": "cosine", "cosine.warmup": 0.0}
    record = record_of(number, value=value, params=point)
    return TrialRecord(number, Outcome.COMPLETE, Proposal(point), record.value)


def taken(earlier: Earlier, **tables: Any) -> WarmStart:
    found = take_over(make_spec(**{"space": SPACE} | tables), earlier)
    assert found is not None
    return found


def believed(optimizer: str) -> float:
    """Returns the mean of the catalog's belief about an optimizer's learning rate."""
    prior = OPTIMIZERS[optimizer].hyperparameters[0].prior
    assert prior is not None
    return prior.mean


def rates(start: WarmStart) -> list[float]:
    return [
        float(opening.params[f"{opening.params['optimizer']}.lr"]) for opening in start.openings
    ]


def test_the_best_of_each_optimizer_is_taken_over_and_the_next_best_the_best_first() -> None:
    start = taken(
        earlier_of(
            done(0, 0.9, "sgd", lr=0.1),
            done(1, 0.3, lr=0.01),
            done(2, 0.7, "muon", lr=0.02),
            done(3, 0.35, lr=0.0101),  # all but the best
            done(4, 0.4, lr=0.03),
            done(5, 0.8, "muon", lr=0.1),
        )
    )
    assert rates(start) == [0.01, 0.03, 0.02, 0.1]
    assert [opening.params["optimizer"] for opening in start.openings] == [
        "adam",
        "adam",
        "muon",
        "sgd",
    ]
    assert (start.study, start.trials, start.value, start.rescaled) == ("earlier", 6, 0.3, 1.0)


def test_where_more_is_better_the_largest_value_comes_first() -> None:
    study = {"name": "s", "workload": "a:B", "direction": "maximize"}
    records = done(0, 0.2, lr=0.001), done(1, 0.9, lr=0.1)
    start = taken(earlier_of(*records, study=study), study=study)
    assert rates(start) == [0.1, 0.001]
    assert start.value == 0.9


def test_only_complete_trials_of_full_length_teach() -> None:
    short = done(2, 0.1, lr=0.2)
    records = (
        done(0, 0.5, lr=0.01),
        record_of(1, Outcome.PRUNED, 0.1, params={"optimizer": "adam", "adam.lr": 0.1}),
        TrialRecord(2, short.outcome, short.proposal, 0.1, {}, {"steps": 9, "total_steps": 100}),
        record_of(3, Outcome.RUNNING, params={"optimizer": "sgd", "sgd.lr": 0.1}),
    )
    start = taken(earlier_of(*records))
    assert (rates(start), start.trials) == ([0.01], 1)


def test_nothing_is_taken_over_without_a_complete_trial_of_an_optimizer_that_competes() -> None:
    only_sgd = make_spec(space=SPACE | {"optimizers": ["sgd"]})
    assert take_over(only_sgd, earlier_of(done(0, 0.1, lr=0.1))) is None
    assert take_over(only_sgd, earlier_of()) is None


@pytest.mark.parametrize(
    ("before", "after", "factor"),
    [
        ({"steps": 100}, {"steps": 300}, 3**-0.3),
        ({"steps": 300}, {"steps": 100}, 3**0.3),
        ({"epochs": 2}, {"epochs": 4.0}, 2**-0.3),
        ({"examples": 500}, {"examples": 500}, 1.0),
        ({"steps": 100}, {"epochs": 300}, 1.0),
    ],
)
def test_learning_rates_fall_with_the_length_of_trials(
    before: dict[str, Any], after: dict[str, Any], factor: float
) -> None:
    records = done(0, 0.1, lr=0.01), done(1, 0.2, "muon", lr=0.03)
    start = taken(earlier_of(*records, budget=before), budget=after)
    assert start.rescaled == pytest.approx(factor)
    assert rates(start) == pytest.approx([0.01 * factor, 0.03 * factor])
    halfway = (math.log10(0.01 * factor) + believed("adam")) / 2
    assert start.priors["adam.lr"].mean == pytest.approx(halfway, abs=1e-3)


def test_a_belief_moves_half_the_way_to_the_best_rates_and_keeps_its_width() -> None:
    close = earlier_of(*(done(n, 0.1 + n, lr=0.01) for n in range(5)))
    prior = taken(close).priors["adam.lr"]
    assert prior.mean == pytest.approx((-2 + believed("adam")) / 2, abs=1e-3)
    assert prior.std == 0.7
    apart = earlier_of(done(0, 0.1, lr=1e-4), done(1, 0.2, lr=0.1), done(2, 9.0, "sgd", lr=1.0))
    priors = taken(apart).priors
    assert priors["adam.lr"].std == 1.5
    assert priors.keys() == {"adam.lr", "sgd.lr"}


def test_where_the_catalog_believes_nothing_the_best_rates_are_believed() -> None:
    assert all(one.prior is None for one in OPTIMIZERS["adafactor"].hyperparameters)
    space = SPACE | {"optimizers": ["adafactor"]}
    start = taken(earlier_of(done(0, 0.1, "adafactor", lr=0.001), space=space), space=space)
    assert start.priors["adafactor.lr"].mean == -3.0


def test_rates_that_are_not_searched_are_believed_nothing_of() -> None:
    fixed = {"adam": {"lr": 0.5}}
    start = taken(earlier_of(done(0, 0.1, lr=0.1)), optimizer=fixed)
    assert start.priors == {}
    assert start.openings[0].params == {"optimizer": "adam", "schedule": "cosine"}


def test_what_the_earlier_study_did_not_search_is_taken_over_too() -> None:
    earlier = earlier_of(
        done(0, 0.1, lr=0.02),
        optimizer={"adam": {"beta1": 0.5, "eps": 1e-3}},
        train={"batch_size": 16},
    )
    wide = {"space": SPACE | {"breadth": 3}, "train": {"batch_size": {"choices": [64, 16]}}}
    spec = make_spec(**wide)
    config = decode(spec, Proposal(dict(taken(earlier, **wide).openings[0].params)))
    assert config.batch_size == 16
    values = config.optimizer_values
    assert (values["lr"], values["eps"]) == (0.02, 1e-3)
    assert values["beta1"] == pytest.approx(0.5)


def test_defaults_that_did_well_are_taken_over_as_they_were() -> None:
    spec = make_spec(space=SPACE)
    record = TrialRecord(0, Outcome.COMPLETE, default_proposal(spec, "adam"), 0.1)
    assert record.proposal.preset == DEFAULT
    assert rates(taken(Earlier("earlier", spec, [record]))) == [0.001]


def test_parameter_groups_and_networks_are_taken_over_with_their_rates_rescaled() -> None:
    lr = {"low": 1e-6, "high": 1.0, "log": True}
    group = {"name": "head", "match": "head.*", "lr_multiplier": lr}
    tables: dict[str, Any] = {
        "network": {"judge": {"adam": {"lr": lr}}},
        "train": {"groups": [group]},
    }
    record = done(0, 0.1, lr=0.01)
    point = record.proposal.params | {"network.judge.adam.lr": 0.001, "group.head.lr_multiplier": 5}
    name = next(n for n in make_spec(**{"space": SPACE} | tables).axes() if "multiplier" in n)
    point = {name if key.startswith("group") else key: v for key, v in point.items()}
    point[name] = 0.125
    record = TrialRecord(0, Outcome.COMPLETE, Proposal(point), 0.1)
    start = taken(earlier_of(record, **tables), budget={"steps": 1000}, **tables)
    [opening] = start.openings
    assert opening.params["network.judge.adam.lr"] == pytest.approx(0.001 * start.rescaled)
    assert opening.params[name] == 0.125


def test_hyperparameters_of_the_loop_are_given_where_it_asks_alike() -> None:
    width = Int(low=8, high=64, log=True)
    first = done(0, 0.1, lr=0.01)
    point = Proposal(first.proposal.params | {"width": 24})
    record = TrialRecord(0, Outcome.COMPLETE, point, 0.1, own_axes={"width": width})
    start = taken(earlier_of(record))
    spec = make_spec(space=SPACE).model_copy(update={"warm_start": start})
    proposer = Proposer(spec, 0)
    [opening, *others] = proposer.openings()
    assert "width" not in opening.params
    asked = Proposal(dict(opening.params), WARM_START)
    assert proposer.suggest("width", width, asked)[0] == 24
    for axis in (Int(low=8, high=64), Choice(choices=(1, 2)), Int(low=100, high=200)):
        asker = Proposer(spec, 0)
        assert asker.suggest("width", axis, asked) == Proposer(spec, 0).suggest("width", axis)
    for other in others:
        drawn = Proposer(spec, 0).suggest("width", width, Proposal(other.params, PORTFOLIO))
        assert drawn == Proposer(spec, 0).suggest("width", width)


def test_what_was_taken_over_and_the_portfolio_take_turns_within_a_third_of_the_trials() -> None:
    start = taken(earlier_of(done(0, 0.1, lr=0.011), done(1, 0.2, "sgd", lr=0.5)))
    for trials, presets in (
        (60, [WARM_START, PORTFOLIO, WARM_START, PORTFOLIO, PORTFOLIO]),
        (9, [WARM_START, PORTFOLIO, WARM_START]),
        (6, [WARM_START, PORTFOLIO]),
        (3, [WARM_START]),
        (2, []),
    ):
        spec = make_spec(space=SPACE, budget={"trials": trials, "steps": 100})
        spec = spec.model_copy(update={"warm_start": start})
        chosen = choose_openings(spec, load_portfolio())
        assert [one.preset for one in chosen][:5] == presets
        assert len(chosen) <= trials // 3
    alone = make_spec(space=SPACE, search={"portfolio": False})
    alone = alone.model_copy(update={"warm_start": start})
    assert len(Proposer(alone, 0).openings()) == 2


def test_an_opening_that_the_portfolio_has_too_starts_once() -> None:
    spec = make_spec(space=SPACE)
    [first, *_] = choose_openings(spec, load_portfolio())
    record = TrialRecord(0, Outcome.COMPLETE, Proposal(first.params), 0.1)
    start = taken(Earlier("earlier", spec, [record]))
    chosen = choose_openings(spec.model_copy(update={"warm_start": start}), load_portfolio())
    assert [one.params for one in chosen].count(first.params) == 1
    assert (chosen[0].params, chosen[0].preset) == (first.params, WARM_START)


def test_what_no_study_could_have_recorded_teaches_nothing() -> None:
    sound = done(0, 0.5, lr=0.01)
    beyond = TrialRecord(
        1,
        Outcome.COMPLETE,
        Proposal(sound.proposal.params | {"width": 99, "adam.lr": 5e-324}),
        0.1,
        own_axes={"width": Int(low=1, high=9)},
    )
    no_schedule = TrialRecord(
        2, Outcome.COMPLETE, Proposal({"optimizer": "adam", "adam.lr": 0.1}), 0.2
    )
    lr = {"low": 5e-324, "high": 1e300, "log": True}
    earlier = earlier_of(sound, beyond, no_schedule, optimizer={"adam": {"lr": lr}})
    tiny = make_spec(space=SPACE, budget={"trials": 60, "epochs": 5e-324})
    for spec in (earlier.spec, tiny):
        named = Earlier("x" * 2000, spec, earlier.records)
        start = take_over(make_spec(space=SPACE, budget={"trials": 60, "epochs": 1e6}), named)
        assert start is not None
        assert len(start.openings) == 2
        assert all(opening.own == {} for opening in start.openings)
        assert 0 < start.rescaled < math.inf
        assert all(math.isfinite(prior.mean) for prior in start.priors.values())


@settings(max_examples=60)
@given(st.data(), spec_trees(), spec_trees())
def test_any_study_can_start_from_any_other_and_every_worker_alike(
    data: st.DataObject, before: dict[str, Any], after: dict[str, Any]
) -> None:
    earlier, spec = (StudySpec.model_validate(tree).resolve() for tree in (before, after))
    value = st.floats(allow_nan=False, allow_infinity=False)
    records = [
        TrialRecord(
            number, Outcome.COMPLETE, Proposal(walk(earlier, suggest_with(data))), data.draw(value)
        )
        for number in range(data.draw(st.integers(0, 6)))
    ]
    start = take_over(spec, Earlier("earlier", earlier, records))
    competing = {r.optimizer for r in records} & {*spec.space.optimizers}
    assert (start is not None) == bool(competing)
    if start is None:
        return
    assert 1 <= len(start.openings) <= OPENINGS
    for opening in start.openings:
        check_point(spec, dict(opening.params))
    stored = spec.model_copy(update={"warm_start": start})
    read = StudySpec.model_validate(json.loads(json.dumps(stored.to_json())))
    assert read.warm_start == start
    chosen = choose_openings(read, load_portfolio())
    points = [dict(opening.params) for opening in start.openings]
    warm = [one.params for one in chosen if one.preset == WARM_START]
    assert warm == points[: len(warm)]
    assert len(chosen) <= spec.budget.trials // 3
    assert len(warm) >= min(len(points), len(chosen) // 2)


def test_samplers_draw_rates_from_the_moved_beliefs() -> None:
    start = taken(earlier_of(done(0, 0.1, lr=0.2), done(1, 0.2, lr=0.2)))
    assert isinstance(make_spec(space=SPACE).optimizer["adam"]["lr"], Float)

    def drawn(warm: WarmStart | None) -> float:
        spec = make_spec(space=SPACE | {"optimizers": ["adam"]}, search={"sampler": "mixture"})
        spec = spec.model_copy(update={"warm_start": warm})
        proposer = Proposer(spec, 1)
        logs = [math.log10(proposer.propose().params["adam.lr"]) for _ in range(200)]
        return sum(logs) / len(logs)

    assert drawn(start) > drawn(None) + 0.3
