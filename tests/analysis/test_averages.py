from __future__ import annotations

import math

from tests.report.summaries import trial, with_line
from tuner.analysis.averages import line_of, summarize_average
from tuner.domain.trials import Outcome


def rank(value: float | None) -> float:
    return math.inf if value is None else value


def test_a_trial_gains_where_its_average_is_better_than_its_last_weights() -> None:
    records = [
        with_line(trial(0, value=0.5), enumerate((0.6, 0.5))),
        with_line(trial(1, value=0.5), enumerate((0.5, 0.5))),
        with_line(trial(2, value=0.9), enumerate((0.4, 0.9))),
        with_line(trial(3, value=0.7), enumerate((None, 0.7))),
        trial(4, value=0.8),
        trial(5, value=0.1, outcome=Outcome.PRUNED),
    ]
    summary = summarize_average("ema", records, rank)
    assert (summary.gained, summary.compared, summary.complete, summary.trials) == (2, 4, 5, 6)
    assert (summary.best_trial, summary.last_value) == (0, 0.6)
    upwards = summarize_average("ema", records[:3], lambda value: -rank(value))
    assert (upwards.gained, upwards.best_trial) == (1, 2)


def test_an_average_without_trials_has_a_summary() -> None:
    summary = summarize_average("swa", [trial(0, outcome=Outcome.FAILED)], rank)
    assert (summary.best_value, summary.best_trial, summary.last_value) == (None, None, None)
    assert summary.line == ()


def test_a_line_comes_back_from_json_as_it_was_measured() -> None:
    record = with_line(trial(0, value=0.5), enumerate((0.6, None, 0.5)))
    assert line_of(record) == ((0, 0.6), (1, None), (2, 0.5))
