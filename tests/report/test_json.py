from __future__ import annotations

import json

import pytest

from tests.report.summaries import (
    advised_summary,
    averaging_summary,
    make_spec,
    make_timed_spec,
    mixed_summary,
    summary_of,
    trial,
)
from tuner.domain.trials import Outcome, TrialRecord
from tuner.report.json import to_json

KEYS = {
    "activity",
    "stopped_early",
    "study",
    "workload",
    "metric",
    "direction",
    "objective",
    "target",
    "unit",
    "rank_by",
    "storage",
    "budget",
    "counts",
    "best",
    "optimizers",
    "apart",
    "exhausted",
    "averages",
    "wall_s",
    "training_s",
    "evaluation_s",
    "worker_s",
    "overhead",
    "fusing",
    "warm_start",
    "trials_per_hour",
    "steps",
    "steps_per_s",
    "state",
    "full_trials_used",
    "expected_gain",
    "confirmation",
    "verdict",
    "comparison",
    "importance",
    "advice",
}


@pytest.mark.parametrize("records", [(), (trial(0, outcome=Outcome.FAILED),), (trial(0, value=1),)])
def test_a_report_has_the_same_keys_whatever_happened(records: tuple[TrialRecord, ...]) -> None:
    assert to_json(summary_of(*records)).keys() == KEYS


def test_averages_are_reported_with_their_lines() -> None:
    best, *_ = report = to_json(averaging_summary())["averages"]
    assert [row["average"] for row in report] == ["ema", "swa", "none"]
    assert (best["best_trial"], best["best_value"], best["last_value"]) == (1, 0.4, 0.6)
    assert (best["gained"], best["compared"], best["complete"], best["trials"]) == (1, 2, 2, 2)
    assert best["line"] == ((0.0, 0.6), (0.5, 0.5), (1.0, 0.4))
    json.dumps(report, allow_nan=False)
    assert to_json(mixed_summary())["averages"] == []


def test_a_report_says_what_a_study_started_from() -> None:
    assert to_json(mixed_summary())["warm_start"] is None
    start = {"study": "quick", "trials": 9, "value": 0.7}
    spec = make_spec(warm_start={**start, "best": "0.7"})
    for preset, led in (("warm_start", True), ("portfolio", False), (None, False)):
        report = to_json(summary_of(trial(0, "adam", 0.5, preset=preset), spec=spec))
        assert report["warm_start"] == start | {"led": led}
    assert to_json(summary_of(spec=spec))["warm_start"]["led"] is False


def test_a_report_says_which_unit_its_values_have() -> None:
    report = to_json(summary_of(trial(0, "adam", 12.0), spec=make_timed_spec()))
    told = (report["best"]["value"], report["objective"], report["target"], report["unit"])
    assert told == (12.0, "time_to_target", 0.5, "steps")


def test_a_report_survives_json() -> None:
    report = to_json(mixed_summary())
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_a_report_says_what_was_studied_and_what_it_may_cost() -> None:
    report = to_json(mixed_summary())
    assert (report["study"], report["workload"]) == ("some_study", "models.digits:Digits")
    assert (report["metric"], report["direction"]) == ("val_loss", "minimize")
    assert (report["objective"], report["target"], report["unit"]) == ("metric", None, None)
    assert report["storage"] == "sqlite:///tuner_study.db"
    assert report["budget"] == {
        "trials": 20,
        "steps": 40,
        "evaluations": 4,
        "stop": "never",
    }


def test_a_report_describes_the_best_trial() -> None:
    best = to_json(mixed_summary())["best"]
    assert (best["trial"], best["value"]) == (2, 0.25)
    assert (best["optimizer"], best["schedule"]) == ("adam", "cosine")
    assert best["params"]["lr"] == 0.1
    assert best["params"]["cosine.final_ratio"] == 0.0
    assert best["metrics"] == {"val_loss": 0.25, "val_accuracy": 0.9}
    assert best["at_edge"] == ["adam.lr"]


def test_a_report_without_a_winner_says_null() -> None:
    assert to_json(summary_of())["best"] is None


def test_a_report_counts_trials_and_costs() -> None:
    report = to_json(mixed_summary())
    assert report["counts"] == {
        "running": 1,
        "waiting": 0,
        "paused": 0,
        "complete": 3,
        "pruned": 1,
        "diverged": 1,
        "failed": 1,
    }
    assert (report["wall_s"], report["training_s"], report["evaluation_s"]) == (100.0, 14.0, 3.5)
    assert (report["steps"], report["steps_per_s"]) == (280, 2.8)
    assert report["trials_per_hour"] == 6 * 36


def test_a_report_ranks_the_optimizers() -> None:
    report = to_json(mixed_summary(make_spec(space={"optimizers": ["sgd", "muon", "adam"]})))
    rows = report["optimizers"]
    assert [row["optimizer"] for row in rows] == ["adam", "sgd", "muon"]
    assert rows[0]["best_value"] == 0.25
    assert rows[0]["default_value"] == 0.5
    assert rows[2]["best_value"] is None


def test_advice_and_importance_are_told() -> None:
    told = json.loads(json.dumps(to_json(advised_summary())))
    assert told["advice"] == [
        {
            "kind": "noise",
            "sentence": "It <b>may</b> be noise.",
            "command": "tuner study confirm 'a `b` <c>'",
        }
    ]
    assert [(a["optimizer"], a["explained"]) for a in told["importance"]] == [
        (None, 0.2), ("adam", 0.5), ("sgd", 0.0), ("muon", None)
    ]  # fmt: skip
    assert told["importance"][1]["shares"][0] == {
        "name": "adam.lr", "share": 0.42, "p": 0.001, "fitted": 0.9
    }  # fmt: skip
    before = to_json(mixed_summary())
    assert (before["advice"], before["importance"]) == ([], [])
