from __future__ import annotations

from tests.analysis.suites import even, plan_of, result_of, suite_of
from tuner.analysis.suite import summarize_suite
from tuner.report.suite_tables import suite_tables


def test_the_tables_hold_scores_profiles_runs_and_workloads() -> None:
    late = even(4, 6, 1) | {"muon": [None] * 3}
    summary = suite_of(digits=even(4, 6, 2), own=late)
    steps, seconds, profiles, standings, workloads = suite_tables(summary)
    assert steps.rows[0] == ("adam", "0.833", "1.50", "2 of 2")
    assert ("muon", "0.500", "3.00 on 1 of 2", "1 of 2") in steps.rows
    assert "seconds" in seconds.title
    assert profiles.columns == ("optimizer", "τ = 1", "τ = 1.5", "τ = 2", "τ = 3", "τ = 4")
    assert ("adam", "50%", "50%", "100%", "100%", "100%") in profiles.rows
    assert ("own", "muon", "–", "–", "–", "missed", "0 of 3") in standings.rows
    assert ("digits", "muon", "0.1", "20", "0.4", "1.00 ×", "3 of 3") in standings.rows
    assert ("own", "mine.own", "val_loss ≤ 0.1", "the suite file", "scored") in workloads.rows


def test_without_seconds_no_table_has_any() -> None:
    plan = plan_of()
    summary = summarize_suite(plan, [result_of(even(4, 6, 2), plan, lanes=2)])
    tables = suite_tables(summary)
    assert len(tables) == 4
    assert not any("second" in word for table in tables for word in (table.title, *table.columns))
    assert ("digits", "mine.digits", "val_loss ≤ 0.1", "adamw's runs", "scored") in tables[-1].rows


def test_a_suite_that_nothing_is_known_of_shows_its_workloads() -> None:
    (table,) = suite_tables(suite_of(digits="it has no study yet"))
    assert table.rows == (("digits", "–", "–", "–", "it has no study yet"),)
