from __future__ import annotations

from tests.report.summaries import make_spec, summary_of, trial
from tuner.analysis.summary import StudySummary
from tuner.domain.trials import Outcome
from tuner.report.charts.selection import CURVES, LISTED, choose_curves, choose_listed, spread

LARGE = 5_000
OPTIMIZERS = ("sgd", "adam", "muon", "rmsprop")


def many() -> StudySummary:
    """Returns a study in which the value of a trial grows with its number."""
    records = []
    for number in range(LARGE):
        outcome = Outcome.PRUNED if number % 3 == 2 else Outcome.COMPLETE
        name = OPTIMIZERS[number % 4] if number % 49 == 0 else OPTIMIZERS[number % 2]
        records.append(trial(number, name, 1.0 + number, outcome))
    return summary_of(*records, spec=make_spec())


def test_the_best_of_each_optimizer_are_drawn_and_its_worst() -> None:
    summary = many()
    for most, chosen in (
        (CURVES, set(choose_curves(summary))),
        (LISTED, set(choose_listed(summary))),
    ):
        assert len(chosen) <= most
        for name in OPTIMIZERS:
            own = [r for r in summary.records if r.optimizer == name]
            best = [r.number for r in own if r.outcome is Outcome.COMPLETE][:20]
            assert set(best) <= chosen
            assert max(r.number for r in own if r.outcome is Outcome.PRUNED) in chosen


def test_a_small_study_is_shown_as_a_whole() -> None:
    summary = summary_of(trial(0, value=1.0), trial(1, outcome=Outcome.FAILED))
    assert choose_listed(summary) == [0, 1]
    assert choose_curves(summary) == [0]


def test_spread_has_the_first_and_the_last() -> None:
    assert spread(range(10), 4) == [0, 3, 6, 9]
    assert spread(range(3), 4) == [0, 1, 2]
    assert spread(range(3), 1) == [0]
