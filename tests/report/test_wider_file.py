from __future__ import annotations

import tomllib
from dataclasses import replace
from typing import Any

import pytest

from tests.report.summaries import make_spec, summary_of, trial
from tuner.analysis.summary import StudySummary
from tuner.domain.catalog.dimensions import Fixed, Float
from tuner.domain.spec import StudySpec
from tuner.domain.study_file import parse_spec
from tuner.errors import SpecError
from tuner.report.wider_file import wider_name, write_wider

LR: dict[str, Any] = {"low": 1e-4, "high": 0.1, "log": True}


def summary_at(rate: float, name: str = "some_study", **tables: Any) -> StudySummary:
    space = {"breadth": 2, "optimizers": ["adam", "lookahead(momentum)"]}
    usual: dict[str, Any] = {"space": space, "optimizer": {"adam": {"lr": LR, "eps": 1e-6}}}
    spec = make_spec(name, **usual | tables)
    params = {"adam.lr": rate, "network.left.adam.lr": rate}
    trials = [trial(n, "adam", 1.0 + n, params=params) for n in range(5)]
    return summary_of(*trials, spec=spec)


def read(text: str) -> StudySpec:
    return parse_spec(tomllib.loads(text), origin="test").resolve()


def test_the_file_is_the_study_with_a_wider_range_and_a_new_name() -> None:
    summary = summary_at(0.1)
    wider = read(write_wider(summary))
    assert wider.study.name == "some_study.wider"
    assert wider.search.warm_start == "some_study"
    assert wider.optimizer["adam"]["lr"] == Float(low=1e-4, high=1.0, log=True)
    assert wider.optimizer["adam"]["eps"] == Fixed(value=1e-6)
    differences = summary.spec.differences(wider)
    assert differences.keys() == {"study.name", "search.warm_start", "optimizer.adam.lr"}


def test_each_wider_range_has_its_reason_above_it() -> None:
    lines = write_wider(summary_at(1e-4)).splitlines()
    at = next(place for place, line in enumerate(lines) if line.startswith("lr = "))
    assert lines[at - 1] == (
        "# adam.lr was searched in log[0.0001, 0.1]; of adam's best 3 trials 3 (0, 1, 2) lie at "
        "its low end."
    )
    assert lines[at] == "lr = {low = 1e-05, high = 0.1, log = true}"


def test_settings_of_every_table_are_kept() -> None:
    tables: dict[str, Any] = {
        "budget": {"trials": 9, "epochs": 1.5, "evaluations": 3},
        "train": {"groups": [{"name": "head", "match": "head.*"}], "grad_clip": 2.0},
        "network": {"left": {"adam": {"lr": LR}}},
        "confirm": {"top": 0},
    }
    summary = summary_at(0.1, **tables)
    wider = read(write_wider(summary))
    assert summary.spec.differences(wider).keys() == {
        "study.name",
        "search.warm_start",
        "optimizer.adam.lr",
        "network.left.adam.lr",
    }
    assert wider.confirm.top == 0
    assert wider.network["left"]["adam"]["lr"] == Float(low=1e-4, high=1.0, log=True)


def test_a_comparison_stays_one_and_starts_cold() -> None:
    tables: dict[str, Any] = {
        "search": {"mode": "compare"},
        "budget": {"trials": 10, "steps": 40},
    }
    wider = read(write_wider(summary_at(0.1, **tables)))
    assert (wider.search.mode, wider.search.warm_start) == ("compare", "off")


def test_the_file_after_a_comparison_that_ran_a_trial_again_shares_trials_out_equally() -> None:
    summary = summary_at(0.1, search={"mode": "compare"}, budget={"trials": 10, "steps": 40})
    budget = summary.spec.budget.model_copy(update={"trials": 11})
    again = replace(summary, spec=summary.spec.model_copy(update={"budget": budget}))
    assert read(write_wider(again)).budget.trials == 10


def test_a_name_is_a_comment_and_a_text_and_no_more() -> None:
    name = 'a "b" # [c]'
    wider = read(write_wider(summary_at(0.1, name=name)))
    assert wider.study.name == f"{name}.wider"


def test_where_no_range_asks_for_it_no_file_is_written() -> None:
    with pytest.raises(SpecError, match="2 of the 3 best lie at the same end"):
        write_wider(summary_at(0.01))
    with pytest.raises(SpecError, match="No range of the study"):
        write_wider(summary_of())


def test_names_count_on() -> None:
    assert wider_name("a/b") == "a-b.wider"
    assert wider_name("a.wider9") == "a.wider10"
