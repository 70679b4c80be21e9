from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.report.summaries import make_spec, summary_of, trial
from tuner.analysis.standings import Standings
from tuner.domain.trials import Outcome, TrialRecord

_ENDS = (Outcome.COMPLETE, Outcome.PRUNED, Outcome.DIVERGED, Outcome.FAILED, Outcome.RUNNING)

trials = st.lists(
    st.builds(
        lambda outcome, value, optimizer: (
            outcome,
            value if outcome is Outcome.COMPLETE else None,
            optimizer,
        ),
        st.sampled_from(_ENDS),
        st.integers(-3, 3).map(float),
        st.sampled_from(["adam", "sgd", "momentum"]),
    ),
    max_size=12,
)


def records_of(drawn: list[tuple[Outcome, float | None, str]]) -> list[TrialRecord]:
    return [
        trial(number, optimizer, value, outcome)
        for number, (outcome, value, optimizer) in enumerate(drawn)
    ]


@given(trials, st.sampled_from(["minimize", "maximize"]), st.randoms(use_true_random=False))
def test_standings_are_those_of_the_report_in_whatever_order_trials_end(
    drawn: list[tuple[Outcome, float | None, str]], direction: str, order: random.Random
) -> None:
    spec, records = make_spec(direction=direction), records_of(drawn)
    summary, standings = summary_of(*records, spec=spec), Standings(spec)
    for record in records:
        standings.add(trial(record.number, record.optimizer, outcome=Outcome.RUNNING))
    for record in order.sample(records, len(records)):
        standings.add(record)
    assert {outcome.value: standings.counts[outcome] for outcome in Outcome} == summary.counts
    assert (standings.best and standings.best.number) == (
        summary.best and summary.best.record.number
    )
    shown = {s.optimizer: (s.best and s.best.number) for s in standings.by_optimizer()}
    assert shown == {row.optimizer: row.best_trial for row in summary.optimizers}
    ranked = [s.optimizer for s in standings.by_optimizer() if s.best]
    assert ranked == [row.optimizer for row in summary.optimizers if row.best_trial is not None]


@pytest.mark.parametrize(
    ("direction", "course"),
    [("minimize", [3.0, 3.0, 2.0, 2.0, 1.0]), ("maximize", [3.0, 3.0, 3.0, 3.0, 3.0])],
)
def test_course_is_the_best_so_far_after_each_trial(direction: str, course: list[float]) -> None:
    standings = Standings(make_spec(direction=direction))
    assert standings.course(9) == []
    values = [3.0, None, 2.0, 2.5, 1.0]
    for number, value in enumerate(values):
        outcome = Outcome.COMPLETE if value is not None else Outcome.PRUNED
        standings.add(trial(number, value=value, outcome=outcome))
    assert standings.course(9) == course
    assert standings.course(3) == [course[0], course[2], course[4]]
    assert standings.course(1) == [course[0]]
