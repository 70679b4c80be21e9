"""The plots of a page; of a large study a part is drawn, and that is said."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import replace
from typing import Any

import pytest
from plotly.offline import get_plotlyjs

from tests.report.summaries import make_spec, make_timed_spec, mixed_summary, summary_of, trial
from tuner.analysis.summary import StudySummary
from tuner.domain.objective import UNREACHED
from tuner.domain.trials import Outcome, TrialRecord
from tuner.report.figures import CURVES, POINTS, choose_curves, draw_figures
from tuner.report.html import to_html

LARGE = 5_000
OPTIMIZERS = ("sgd", "adam", "muon", "rmsprop")


def many(count: int = LARGE, direction: str = "minimize") -> StudySummary:
    """Returns a study in which the value of a trial grows with its number."""
    records = []
    for number in range(count):
        outcome = Outcome.PRUNED if number % 3 == 2 else Outcome.COMPLETE
        name = OPTIMIZERS[number % 4] if number % 49 == 0 else OPTIMIZERS[number % 2]
        params = {f"{name}.lr": 1e-4 * (1 + number / count)}
        records.append(trial(number, name, 1.0 + number, outcome, params=params))
    return summary_of(*records, spec=make_spec(direction=direction))


def curves_of(summary: StudySummary) -> list[TrialRecord]:
    chosen = set(choose_curves(summary))
    return [record for record in summary.records if record.number in chosen]


def drawn(summary: StudySummary) -> dict[str, tuple[list[dict[str, Any]], dict[str, Any], str]]:
    """Returns the traces, the layout and the note of each plot, by its title."""
    figures = draw_figures(summary, curves_of(summary))
    found = {}
    for figure in figures:
        data = json.loads(figure.data)
        found[figure.title] = data["data"], data["layout"], figure.note
    return found


def test_a_small_study_is_drawn_as_a_whole_and_without_a_note() -> None:
    found = drawn(mixed_summary())
    assert list(found) == [
        "Best value over trials",
        "Curves of all trials",
        "Values by optimizer and schedule",
        "Trials over time",
    ]
    assert {note for _, _, note in found.values()} == {""}
    values, best = found["Best value over trials"][0]
    assert dict(zip(values["x"], values["y"], strict=True)) == {0: 0.8, 1: 0.5, 2: 0.25}
    assert (best["x"], best["y"]) == ([0, 1, 2, 6], [0.8, 0.5, 0.25, 0.25])
    curves = found["Curves of all trials"][0]
    assert [curve["name"] for curve in curves] == ["trial 0", "trial 1", "trial 2", "trial 3"]
    assert curves[0]["x"] == [10, 20, 40]
    bars = found["Trials over time"][0]
    assert {bar["name"]: bar["y"] for bar in bars} == {
        "complete": [0, 1, 2],
        "pruned": [3],
        "diverged": [4],
        "failed": [5],
        "running": [6],
    }


def test_a_page_of_thousands_of_trials_is_small_and_says_what_it_leaves_out() -> None:
    summary = many()
    page = to_html(summary, curves_of(summary))
    assert len(page) < 3_000_000
    assert f"Drawn are {CURVES} of {LARGE:,} trials" in page
    assert page.count("All of them: tuner study show some_study --json") == 4
    assert "trial 0." in page


def test_the_best_of_each_optimizer_are_drawn_and_its_worst() -> None:
    summary = many()
    chosen = set(choose_curves(summary))
    assert len(chosen) <= CURVES
    for name in OPTIMIZERS:
        own = [r for r in summary.records if r.optimizer == name and r.outcome is Outcome.COMPLETE]
        assert {record.number for record in own[:20]} <= chosen
        pruned = [r.number for r in summary.records if r.optimizer == name and r not in own]
        assert max(pruned) in chosen


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_best_value_over_trials_is_that_of_all(direction: str) -> None:
    summary = many(direction=direction)
    values, best = drawn(summary)["Best value over trials"][0]
    assert len(values["x"]) <= POINTS
    complete = [r for r in summary.records if r.outcome is Outcome.COMPLETE]
    if direction == "minimize":
        assert (best["x"], best["y"]) == ([0, LARGE - 1], [1.0, 1.0])
    else:
        assert best["y"] == sorted(best["y"])
        assert best["y"][-1] == values["y"][-1] == complete[-1].value


def test_times_to_a_target_are_drawn_as_such_and_only_of_trials_that_reached_it() -> None:
    records = trial(0, "adam", 12.0), trial(1, "sgd", UNREACHED)
    found = drawn(summary_of(*records, spec=make_timed_spec()))
    traces, layout, _ = found["Values by optimizer and schedule"]
    assert [trace["y"] for trace in traces] == [[12.0], [12.0]]
    assert layout["yaxis"]["title"]["text"] == "steps to val_loss 0.5"
    bars, _, _ = found["Trials over time"]
    assert [text.rpartition(", ")[2] for text in bars[0]["text"]] == ["12 steps", "not reached"]


def test_curves_are_drawn_on_a_log_scale_unless_one_is_not_positive() -> None:
    summary = summary_of(trial(0, "adam", 0.5), trial(1, "adam", 0.25))
    assert drawn(summary)["Curves of all trials"][1]["yaxis"]["type"] == "log"
    crossing = replace(summary.records[1], value=-0.5)
    below = summary_of(summary.records[0], crossing)
    for title in ("Curves of all trials", "Best value over trials"):
        assert drawn(below)[title][1]["yaxis"]["type"] == "linear"


def test_plotly_lies_in_the_page_packed() -> None:
    page = to_html(mixed_summary(), mixed_summary().records)
    packed = page.split('id="plotly">')[1].split("<")[0]
    assert gzip.decompress(base64.b64decode(packed)).decode() == get_plotlyjs()
    assert len(page) < 0.5 * len(get_plotlyjs())


def test_a_text_in_a_plot_ends_no_script() -> None:
    spec = make_spec(metric="val_loss/x")
    page = to_html(summary_of(trial(0, "adam", 0.5), spec=spec), ())
    assert "val_loss\\u002fx" in page
