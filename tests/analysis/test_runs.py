from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.report.summaries import make_spec, trial
from tuner.analysis.confirmed import Confirmed, summarize_confirmation
from tuner.analysis.runs import (
    Run,
    find_racing,
    list_runs,
    read_arms,
    read_tests,
    redraws_splits,
    run_confirmation,
)
from tuner.domain.catalog.dimensions import Value
from tuner.domain.confirmation import CONFIRMS, REPEAT, Confirmation, Finalist
from tuner.domain.trials import Outcome, Proposal, TrialRecord, default_proposal

SPEC = make_spec()


def confirmation(finalists: int, runs: int, seeds: int = 10) -> Confirmation:
    """Returns finalists 0, 1, ..., the first two protected."""
    return Confirmation(
        study="0" * 32,
        finalists=tuple(
            Finalist(
                trial=number,
                params={"optimizer": "adam", "schedule": "constant", "adam.lr": 0.01 + number},
                protected=number < 2,
            )
            for number in range(finalists)
        ),
        seeds=seeds,
        runs=runs,
    )


def run_of(
    number: int, run: Run, value: float | None, outcome: Outcome | None = None
) -> TrialRecord:
    outcome = outcome or (Outcome.DIVERGED if value is None else Outcome.COMPLETE)
    record = trial(number, "adam", value, outcome)
    noted = {**record.attributes, CONFIRMS: run.trial, REPEAT: run.repeat}
    return dataclasses.replace(record, attributes=noted)


def play(
    plan: Confirmation, value_of: dict[Run, float | None], order: np.random.Generator
) -> list[TrialRecord]:
    """Trains all runs that the race asks for, those that may start at once in any order."""
    records: list[TrialRecord] = []
    started: list[Run] = []
    for _ in range(plan.seeds * len(plan.finalists) + 1):
        heats = read_arms(plan, SPEC, records)
        race = run_confirmation(plan, SPEC, heats)
        runs = list_runs(heats, race)
        assert runs[: len(started)] == started  # whoever knows more lists the same first
        fresh = runs[len(started) :]
        if not fresh:
            assert race.settled
            return records
        started = runs
        order.shuffle(fresh)
        records += [
            run_of(len(records) + place, run, value_of[run]) for place, run in enumerate(fresh)
        ]
    raise AssertionError("the race does not end")


@given(
    st.integers(1, 5),
    st.integers(5, 12),
    st.integers(0, 2**32),
    st.sampled_from([0.0, 0.1, 0.6]),
    st.sampled_from([0.0, 1.0, 20.0]),
)
def test_a_race_ends_within_its_runs_and_starts_each_once(
    finalists: int, seeds: int, seed: int, diverging: float, apart: float
) -> None:
    chance = np.random.default_rng(seed)
    plan = confirmation(finalists, runs=max(15, finalists * 5), seeds=seeds)
    value_of = {
        Run(number, repeat): None
        if chance.random() < diverging
        else number * apart + chance.normal()
        for number, repeat in itertools.product(range(finalists), range(seeds))
    }
    records = play(plan, value_of, chance)
    runs = [Run(r.attributes[CONFIRMS], r.attributes[REPEAT]) for r in records]
    assert len(runs) == len(set(runs)) <= plan.runs
    each = {number: sum(run.trial == number for run in runs) for number in range(finalists)}
    assert min(each[0], each.get(1, 5)) >= 5
    assert all(count >= 3 for count in each.values())


def test_who_is_clearly_beaten_is_given_no_further_seed() -> None:
    plan = confirmation(4, runs=40)
    value_of: dict[Run, float | None] = {
        Run(number, repeat): 100.0 * number + 0.1 * ((repeat * 7 + number) % 5)
        for number, repeat in itertools.product(range(4), range(10))
    }
    records = play(plan, value_of, np.random.default_rng(0))
    counts = [sum(r.attributes[CONFIRMS] == number for r in records) for number in range(4)]
    assert counts[0] == counts[1] == 5  # settled as soon as both have the least
    assert counts[2] == counts[3] == 3


@pytest.mark.parametrize("seeds", [5, 7])
def test_runs_are_listed_seed_by_seed(seeds: int) -> None:
    plan = confirmation(3, runs=30, seeds=seeds)
    heats = read_arms(plan, SPEC, [])
    race = run_confirmation(plan, SPEC, heats)
    assert list_runs(heats, race) == [Run(n, k) for k in range(3) for n in range(3)]


def test_of_a_run_that_ran_again_the_first_counts_and_what_is_not_over_does_not() -> None:
    plan = confirmation(2, runs=15)
    records = [
        run_of(1, Run(0, 0), 9.0),
        run_of(0, Run(0, 0), 1.0),
        run_of(2, Run(0, 1), None),
        run_of(3, Run(0, 2), 3.0, outcome=Outcome.RUNNING),
        run_of(4, Run(1, 1), 5.0),  # its first seed is not over
    ]
    one, other = read_arms(plan, SPEC, records).arms
    assert (one.values, other.values) == ((1.0, None), ())


def noted(record: TrialRecord, **attributes: object) -> TrialRecord:
    return dataclasses.replace(record, attributes={**record.attributes, **attributes})


def test_test_values_are_those_of_complete_runs_that_count() -> None:
    records = [
        noted(run_of(0, Run(0, 0), None, Outcome.FAILED), test={"accuracy": 0.1}),
        noted(run_of(1, Run(0, 0), 1.0), test={"accuracy": 0.2, "val_loss": None}),
        noted(run_of(2, Run(0, 0), 1.0), test={"accuracy": 0.3}),
        noted(run_of(3, Run(0, 1), None), test={"accuracy": 0.4}),
        noted(run_of(4, Run(1, 0), 1.0), test={}),
        run_of(5, Run(1, 1), 1.0),
    ]
    assert read_tests(records) == {Run(0, 0): {"accuracy": 0.2, "val_loss": None}}


def test_splits_are_redrawn_where_every_complete_run_says_so() -> None:
    split = [noted(run_of(k, Run(0, k), 1.0), split_seed=k) for k in range(3)]
    assert redraws_splits(split)
    assert redraws_splits([*split, run_of(3, Run(0, 3), None)])
    assert not redraws_splits([*split, run_of(3, Run(0, 3), 1.0)])
    assert not redraws_splits([])


def confirmed_of(tests: dict[Run, dict[str, float | None]], **others: object) -> Confirmed:
    """Returns a confirmation of two finalists on five seeds, with values over test data."""
    plan = confirmation(2, runs=10, seeds=5)
    runs = [Run(n, k) for k in range(5) for n in range(2)]
    records = [
        noted(run_of(place, run, run.trial + run.repeat), test=tests.get(run, {}), **others)
        for place, run in enumerate(runs)
    ]
    found = summarize_confirmation(
        "s.confirm", SPEC.model_copy(update={"confirmation": plan}), records
    )
    assert found is not None
    return found


def test_a_finalist_has_the_mean_of_its_test_values_and_none_where_none_is_known() -> None:
    tests: dict[Run, dict[str, float | None]] = {
        Run(0, k): {"accuracy": k / 10, "val_loss": 1.0} for k in range(4)
    }
    found = confirmed_of(tests | {Run(0, 1): {"accuracy": None}})
    assert found.tested == ("val_loss", "accuracy")  # that of the study first
    one = found.test_of(0, "accuracy")
    assert one.values == (0.0, None, 0.2, 0.3, None)
    assert one.mean == pytest.approx(0.5 / 3)
    assert one.deviation == pytest.approx(np.std([0, 0.2, 0.3], ddof=1))
    other = found.test_of(1, "accuracy")
    assert (other.values, other.mean, other.deviation) == ((None,) * 5, None, None)


def test_test_values_choose_nothing() -> None:
    tests: dict[Run, dict[str, float | None]] = {
        Run(n, k): {"val_loss": -100.0 * n} for n in range(2) for k in range(5)
    }
    assert confirmed_of(tests).winner == confirmed_of({}).winner == 0


def test_damaged_attributes_count_for_no_run() -> None:
    plan = confirmation(2, runs=15)
    damaged = run_of(0, Run(0, 0), 1.0)
    for key, value in itertools.product((CONFIRMS, REPEAT), ("0", None, 1.5, True, [0])):
        record = dataclasses.replace(damaged, attributes={**damaged.attributes, key: value})
        assert [arm.values for arm in read_arms(plan, SPEC, [record]).arms] == [(), ()]


def as_of(record: TrialRecord, names: Sequence[str]) -> TrialRecord:
    """Returns a run as one of its finalist's optimizer."""
    params = {**record.proposal.params, "optimizer": names[record.attributes[CONFIRMS]]}
    return dataclasses.replace(record, proposal=Proposal(params))


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_a_comparison_runs_heats_first_and_then_one_of_each_optimizer(seed: int) -> None:
    generator = np.random.default_rng(seed)
    names = ["adam", "adam", "adam", "sgd", "sgd", "muon"]
    finalists = tuple(
        Finalist(trial=number, params={"optimizer": name, "schedule": "constant"}, protected=True)
        for number, name in enumerate(names)
    )
    plan = Confirmation(study="0" * 32, finalists=finalists, seeds=5, runs=18 + 15, compares=True)
    values = {Run(n, k): float(generator.normal()) for n in range(6) for k in range(8)}
    records = play(plan, dict(values), generator)
    counts = Counter(record.attributes[CONFIRMS] for record in records)
    # Those that chose do not count for the verdict, nor those of who left.
    racing = find_racing(plan, SPEC, [as_of(record, names) for record in records])
    assert {name: len(own) for name, own in racing.items()} == {"adam": 5, "muon": 5, "sgd": 5}
    raced = [number for number, runs in counts.items() if runs > 3]
    assert sorted(names[number] for number in raced) == ["adam", "muon", "sgd"]
    assert sorted(counts.values()) == [3, 3, 3, 8, 8, 8]
    for left in set(range(6)) - set(raced):
        rival = next(other for other in raced if names[other] == names[left])
        means = [sum(values[Run(one, k)] for k in range(3)) for one in (rival, left)]
        assert means[0] <= means[1]


def test_a_tie_goes_to_defaults_which_have_nothing_to_tune() -> None:
    spec = make_spec()
    tuned: dict[str, Value] = {"optimizer": "sgd", "schedule": "constant", "sgd.lr": 0.5}
    plan = Confirmation(
        study="0" * 32,
        finalists=(
            Finalist(trial=0, params=tuned),
            Finalist(trial=-1, params=dict(default_proposal(spec, "adam").params)),
        ),
        seeds=5,
        runs=10,
    )
    arms = {arm.trial: arm for arm in read_arms(plan, spec, []).all}
    assert arms[-1].complexity == 0 < arms[0].complexity
