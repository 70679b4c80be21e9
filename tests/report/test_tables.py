from __future__ import annotations

import pytest

from tests.report.summaries import (
    advised_summary,
    averaging_summary,
    half_settled_summary,
    make_spec,
    mixed_summary,
    summary_of,
    trial,
)
from tuner.domain.trials import Outcome
from tuner.report.tables import (
    TextTable,
    averages,
    best_tables,
    duration,
    facts,
    importance,
    number,
    ranking,
    settings,
)


def column(table: TextTable, name: str) -> list[str]:
    return [row[table.columns.index(name)] for row in table.rows]


def fact(table: TextTable, name: str) -> str:
    return {row[0]: row[1] for row in table.rows}[name]


def test_every_row_has_a_cell_for_every_column() -> None:
    summary = mixed_summary()
    for table in (ranking(summary), settings(summary), facts(summary)):
        assert {len(row) for row in table.rows} == {len(table.columns)}


def test_optimizers_are_ranked_with_what_is_known_of_them() -> None:
    table = ranking(mixed_summary())
    assert table.rows[0] == ("adam", "–", "0.25", "2", "cosine", "0.5", "3", "1", "0", "0")
    assert column(table, "optimizer")[:2] == ["adam", "sgd"]
    assert "–" in column(table, "best")


def test_an_optimizer_of_few_trials_stands_below_the_line_without_a_rank() -> None:
    table = ranking(half_settled_summary())
    assert table.title.endswith("without a rank: not settled, fewer than 5 finished trials")
    assert (column(table, "optimizer"), column(table, "rank")) == (["adam", "sgd"], ["1", "–"])
    assert (table.line, table.lit) == (1, 1)  # the best trial is sgd's all the same
    assert ranking(mixed_summary()).line == 0


def test_where_all_are_settled_there_is_no_line() -> None:
    spec = make_spec(space={"optimizers": ["sgd", "adam"]})
    trials = [trial(n, name, n / 10) for n, name in enumerate(["adam", "sgd"] * 5)]
    table = ranking(summary_of(*trials, spec=spec))
    assert (table.line, column(table, "rank")) == (None, ["1", "2"])
    assert "settled" not in table.title


def test_one_optimizer_alone_has_no_rank() -> None:
    spec = make_spec(space={"optimizers": ["adam"]})
    table = ranking(summary_of(trial(0, "adam", 0.5), spec=spec))
    assert "rank" not in table.columns
    assert table.line is None


def test_importance_tells_what_is_known_and_what_is_not() -> None:
    measured = advised_summary().importance
    assert measured is not None
    assert importance(measured).rows == (
        ("optimizer", "20%", "62", "all"),
        ("adam.lr", "42%", "30", "adam"),
        ("none told from noise", "–", "30", "sgd"),
        ("too few trials to tell", "–", "–", "muon (2)"),
    )


def test_only_endings_that_happened_have_a_column() -> None:
    assert ranking(mixed_summary()).columns[-3:] == ("pruned", "diverged", "failed")
    assert ranking(summary_of(trial(0, "adam", 0.5))).columns[-1] == "trials"


def test_defaults_have_a_column_only_where_some_were_tried() -> None:
    assert "defaults" in ranking(mixed_summary()).columns
    assert "defaults" not in ranking(summary_of(trial(0, "adam", 0.5))).columns


def test_averages_stand_beside_the_last_weights_of_their_own_trials() -> None:
    table = averages(averaging_summary())
    assert table.rows == (
        ("ema", "0.4", "1", "0.6", "1 of 2", "2"),
        ("swa", "0.55", "3", "0.45", "0 of 1", "2"),
        ("none", "0.8", "0", "–", "–", "1"),
    )
    titles = [table.title for table in best_tables(averaging_summary())]
    assert titles == ["Averages of weights by val_loss, best first", "Best trial: 1"]
    assert [table.title for table in best_tables(mixed_summary())] == ["Best trial: 2"]


def test_the_settings_are_the_best_trial_s() -> None:
    table = settings(mixed_summary())
    assert table.title == "Best trial: 2"
    assert fact(table, "lr") == "0.1"
    assert fact(table, "cosine.final_ratio") == "0"
    assert fact(table, "batch_size") == "128"


def test_without_a_best_trial_there_are_no_settings() -> None:
    table = settings(summary_of())
    assert (table.title, table.rows) == ("Best trial: none yet", ())


def test_the_costs_count_every_trial() -> None:
    table = facts(mixed_summary())
    expected = "7 of 20: 1 running, 3 complete, 1 pruned, 1 diverged, 1 failed"
    assert fact(table, "trials") == expected
    assert fact(table, "wall time") == "1 min 40 s"
    assert fact(table, "outside both") == "88.3% of the workers' time"


def test_trials_that_nobody_trains_are_told_from_running_ones() -> None:
    summary = summary_of(trial(0, outcome=Outcome.RUNNING), trial(1, outcome=Outcome.WAITING))
    assert "1 running, 1 waiting" in fact(facts(summary), "trials")
    assert summary.finished == 0


def test_running_trials_are_left_out_once_there_are_none() -> None:
    assert "running" not in fact(facts(summary_of(trial(0, outcome=Outcome.FAILED))), "trials")


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.123456, "0.1235"), (1e-9, "1e-09"), (12345.6, "1.235e+04")]
)
def test_a_metric_has_four_digits(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (59.4, "59.4 s"),
        (59.96, "1 min 0 s"),
        (60, "1 min 0 s"),
        (119.6, "2 min 0 s"),
        (3599.7, "1 h 0 min"),
        (86_400, "24 h 0 min"),
    ],
)
def test_a_duration_is_said_in_the_units_that_fit(seconds: float, text: str) -> None:
    assert duration(seconds) == text
