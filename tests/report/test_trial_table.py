from __future__ import annotations

import csv
import io
import sys
from types import ModuleType
from typing import Any

import pytest

from tests.report.summaries import make_spec, trial
from tuner.domain.trials import Outcome
from tuner.errors import NotFoundError, SpecError
from tuner.report.trial_table import (
    check_metrics,
    describe_trials,
    sort_trials,
    to_csv,
    to_parquet,
    to_rows,
    trial_table,
)


def described(*values: float | None, direction: str = "minimize") -> list[dict[str, Any]]:
    records = [
        trial(n, value=v, outcome=Outcome.FAILED if v is None else Outcome.COMPLETE)
        for n, v in enumerate(values)
    ]
    return describe_trials(make_spec(direction=direction), records)


@pytest.mark.parametrize(
    ("direction", "backwards", "order"),
    [
        ("minimize", False, [2, 0, 1]),
        ("minimize", True, [0, 2, 1]),
        ("maximize", False, [0, 2, 1]),
        ("maximize", True, [2, 0, 1]),
    ],
)
def test_best_come_first_and_those_without_a_value_last(
    direction: str, backwards: bool, order: list[int]
) -> None:
    trials = described(0.5, None, 0.25, direction=direction)
    ordered = sort_trials(make_spec(direction=direction), trials, "value", backwards=backwards)
    assert [one["trial"] for one in ordered] == order


def measured(*accuracies: float | None) -> list[dict[str, Any]]:
    return [
        one | {"metrics": {} if accuracy is None else {"accuracy": accuracy, "val_loss": 1.0}}
        for one, accuracy in zip(described(*[1.0] * len(accuracies)), accuracies, strict=True)
    ]


def test_trials_are_sorted_by_any_metric_and_show_it() -> None:
    spec, trials = make_spec(), measured(0.5, None, 0.25)
    order = [one["trial"] for one in sort_trials(spec, trials, "accuracy")]
    assert order == [2, 0, 1]
    assert sort_trials(spec, trials, "accuracy", backwards=True)[0]["trial"] == 0
    table = trial_table(spec, trials, ["accuracy", "val_loss", "accuracy"])
    assert table.columns[3:5] == ("val_loss", "accuracy")
    assert [row[4] for row in table.rows] == ["0.5", "–", "0.25"]
    with pytest.raises(NotFoundError, match=r"choose from .*accuracy"):
        sort_trials(spec, trials, "val_acc")
    with pytest.raises(NotFoundError, match="--metric f1: no trial has a metric of this name"):
        check_metrics(trials, ["f1"], "--metric")


def test_each_setting_and_metric_has_a_column_and_what_a_trial_lacks_is_empty() -> None:
    trials = describe_trials(make_spec(), [trial(0, "sgd", 0.5), trial(1, "adam", 0.25)])
    columns, rows = to_rows(trials)
    assert columns[0] == "trial"
    assert {"params.lr", "params.beta1", "metrics.val_loss"} <= set(columns)
    assert "params.beta1" not in rows[0]
    first, second = csv.DictReader(io.StringIO(to_csv(trials)))
    assert (first["params.beta1"], float(second["params.beta1"])) == ("", 0.9)


def test_csv_of_no_trial_has_heads() -> None:
    assert to_csv([]) == "trial,outcome,value,optimizer,schedule\n"


def test_parquet_is_written_by_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    class DataFrame:
        def __init__(self, rows: list[dict[str, Any]], columns: list[str]) -> None:
            at = rows[0]["started_at"]
            self._text = f"{len(rows)} rows, {columns[0]}, {type(at).__name__}"

        def to_parquet(self, *, index: bool) -> bytes:
            return f"{self._text}, {index}".encode()

    pandas = ModuleType("pandas")
    pandas.DataFrame = DataFrame  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    assert to_parquet(described(0.5)) == b"1 rows, trial, datetime, False"


def test_parquet_without_pandas_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(SpecError, match="pip install pandas pyarrow; or take --format csv"):
        to_parquet(described(0.5))
