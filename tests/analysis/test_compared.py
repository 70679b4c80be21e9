"""The comparison of a study's optimizers: who beats whom, and who was not tuned enough."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.analysis.contests import Rows, contest, records_of
from tests.report.summaries import mixed_summary
from tuner.analysis.compared import Compared, Undertuned, compare_optimizers, generalised_by
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.trials import Outcome

ROWS: Rows = {
    "sgd": [2.0, 1.0, 1.5, 1.2],
    "momentum": [2.0, 1.3, 1.4, 1.5],
    "adamw": [1.0, 0.9, 0.8, 0.7],
}
WOBBLE = tuple(number / 100 for number in range(10))


def fresh(**means: float) -> Rows:
    """Returns runs on fresh seeds, each optimizer's a little above a value."""
    return {
        name: [mean + wobble for wobble in (WOBBLE if place % 2 else WOBBLE[::-1])]
        for place, (name, mean) in enumerate(means.items())
    }


def compared(rows: Rows, fresh: Rows | None = None) -> Compared:
    found = contest(rows, fresh=fresh).compared
    assert found is not None
    return found


def test_a_study_that_searches_compares_nothing() -> None:
    assert mixed_summary().compared is None
    assert compare_optimizers(mixed_summary(), [], []) is None


def test_before_fresh_seeds_the_best_value_comes_first_and_nobody_beats_anybody() -> None:
    found = compared(ROWS)
    assert [tuning.optimizer for tuning in found.tunings] == ["adamw", "sgd", "momentum"]
    assert found.beats is None
    assert found.target is not None
    assert (found.target.value, found.target.reached_by, found.target.seeds) == (
        0.7,
        "adamw",
        False,
    )
    assert [speed.steps for speed in found.speeds] == [40.0, None, None]


def test_the_verdict_orders_optimizers_and_tells_who_beats_whom() -> None:
    found = compared(ROWS, fresh(sgd=1.0, momentum=1.001, adamw=3.0))
    assert [tuning.optimizer for tuning in found.tunings] == ["sgd", "momentum", "adamw"]
    assert found.beats == {"sgd": ("adamw",), "momentum": ("adamw",), "adamw": ()}


def test_on_fresh_seeds_the_target_and_the_times_are_those_of_their_runs() -> None:
    found = compared(ROWS, fresh(sgd=1.0, momentum=1.5, adamw=3.0))
    assert found.target is not None
    assert (found.target.reached_by, found.target.seeds) == ("adamw", True)
    assert found.target.value == pytest.approx(3.05)
    assert [speed.runs for speed in found.speeds] == [10, 10, 10]
    # Curves fall by 0.5 to the last evaluation and by 1 to the one before.
    assert [speed.steps for speed in found.speeds] == [10.0, 10.0, 40.0]


def test_an_optimizer_without_a_run_on_fresh_seeds_is_told_all_the_same() -> None:
    rows = {**ROWS, "adam": [None] * 4}
    found = compared(rows, fresh(sgd=1.0, momentum=1.5, adamw=3.0))
    assert [tuning.optimizer for tuning in found.tunings] == ["sgd", "momentum", "adamw", "adam"]
    assert found.beats is not None
    assert "adam" not in found.beats
    assert (found.speeds[-1].runs, found.speeds[-1].steps) == (0, None)


def test_a_generalisation_that_lost_was_not_tuned_enough() -> None:
    assert compared(ROWS).undertuned == (Undertuned("momentum", "sgd", confirmed=False),)
    better = {**ROWS, "momentum": [2.0, 0.99, 1.4, 1.5]}
    assert compared(better).undertuned == ()
    equal = {**ROWS, "momentum": [2.0, 1.0, 1.4, 1.5]}
    assert compared(equal).undertuned == ()


def test_one_that_never_reached_a_value_lost_and_one_without_a_trial_has_not() -> None:
    diverged = {**ROWS, "momentum": [None] * 4}
    assert compared(diverged).undertuned == (Undertuned("momentum", "sgd", confirmed=False),)
    records = [r for r in records_of(ROWS) if r.optimizer != "momentum"]
    untried = contest(ROWS, records).compared
    assert untried is not None
    assert untried.undertuned == ()


def test_on_fresh_seeds_a_worse_value_is_not_enough() -> None:
    assert compared(ROWS, fresh(sgd=1.0, momentum=1.0001, adamw=1.5)).undertuned == ()
    lost = compared(ROWS, fresh(sgd=1.0, momentum=1.5, adamw=1.2)).undertuned
    assert lost == (Undertuned("momentum", "sgd", confirmed=True),)


def test_larger_values_may_be_better() -> None:
    study = {"name": "s", "workload": "models.digits:Digits", "direction": "maximize"}
    found = contest(ROWS, study=study).compared
    assert found is not None
    assert [tuning.optimizer for tuning in found.tunings] == ["sgd", "momentum", "adamw"]
    assert found.undertuned == ()
    lost = {"sgd": [0.5, 0.9, 0.7, 0.7], "momentum": [0.5, 0.8, 0.7, 0.7]}
    found = contest(lost, study=study).compared
    assert found is not None
    assert found.undertuned == (Undertuned("momentum", "sgd", confirmed=False),)


def test_a_study_without_a_trial_that_is_over_is_compared_too() -> None:
    waiting = [replace(r, outcome=Outcome.RUNNING, value=None) for r in records_of(ROWS)]
    found = contest(ROWS, waiting).compared
    assert found is not None
    assert found.target is None
    assert found.speeds == ()
    assert {tuning.trials for tuning in found.tunings} == {0}
    assert {tuning.diverged for tuning in found.tunings} == {None}
    nothing = contest(ROWS, []).compared
    assert nothing is not None
    assert [tuning.curve for tuning in nothing.tunings] == [(), (), ()]


def test_relations_are_those_of_listed_optimizers_and_no_circle() -> None:
    for name in [*OPTIMIZERS, "lookahead(adamw)"]:
        assert generalised_by(name) <= set(OPTIMIZERS)
        assert name not in generalised_by(name)
    assert generalised_by("lookahead(nesterov)") == {"nesterov", "sgd"}
