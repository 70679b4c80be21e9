"""The comparison of optimizers in every report: its tables, sentences, numbers and plot."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tests.analysis.contests import Rows, contest
from tests.report.summaries import mixed_summary
from tuner.analysis.summary import StudySummary
from tuner.report.charts.progress import draw_progress, random_bands
from tuner.report.charts.svg import Chart
from tuner.report.charts.view import View
from tuner.report.comparison import comparison_tables, tell_comparison
from tuner.report.conclusion import conclude
from tuner.report.html import to_html
from tuner.report.json import to_json
from tuner.report.markdown import to_markdown
from tuner.report.terminal import TextConsole, print_report

ROWS: Rows = {
    "sgd": [2.0, 1.0, 1.04, 1.2],
    "momentum": [2.0, 1.3, 1.4, None],
    "adamw": [1.0, 0.9, 0.8, 0.5],
    "adam": [None, None, None, None],
}
UP = tuple(number / 100 for number in range(10))
FRESH: Rows = {
    "sgd": [1 + wobble for wobble in UP],
    "momentum": [1.5 + wobble for wobble in UP],
    "adamw": [0.6 + wobble for wobble in UP[::-1]],
}


def tables(summary: StudySummary) -> list[list[tuple[str, ...]]]:
    return [list(table.rows) for table in comparison_tables(summary)]


def told(summary: StudySummary) -> str:
    return "\n".join(conclude(summary))


def test_a_study_that_searches_has_no_comparison() -> None:
    assert comparison_tables(mixed_summary()) == []
    assert tell_comparison(mixed_summary()) == []
    assert to_json(mixed_summary())["comparison"] is None


def test_tables_tell_what_tuning_brings_and_how_hard_it_is() -> None:
    summary = contest(ROWS)
    tuning, difficulty = comparison_tables(summary)
    assert tuning.title.endswith("and steps and seconds to val_loss 0.5 (adamw's best)")
    assert tuning.rows == (
        ("adamw", "1", "0.5", "50.0%", "4/4", "40", "2"),
        ("sgd", "2", "1", "50.0%", "2/4", "–", "–"),
        ("momentum", "2", "1.3", "35.0%", "2/4", "–", "–"),
        ("adam", "–", "–", "–", "–", "–", "–"),
    )
    assert difficulty.rows[1] == ("sgd", "2", "100% [16, 100]", "0% [0, 84]", "0% [0, 60]")
    assert difficulty.rows[3] == ("adam", "2", "0% [0, 84]", "0% [0, 84]", "100% [40, 100]")


def test_on_fresh_seeds_a_table_tells_who_beats_whom() -> None:
    summary = contest(ROWS, fresh=FRESH)
    tuning, _, beats = comparison_tables(summary)
    assert "(adamw's median over fresh seeds)" in tuning.title
    assert beats.title == "Who beats whom on fresh seeds"
    # Momentum lost to sgd, which it generalises: that says how it was tuned, not which is better.
    assert beats.rows == (("adamw", "sgd, momentum"), ("sgd", "–"), ("momentum", "–"))


def test_values_of_one_seed_say_to_use_nobody() -> None:
    first, *others = conclude(contest(ROWS))
    assert first.startswith("No optimizer is shown to be better yet")
    assert "'tuner study confirm some_study'" in others[0]
    assert "Use " not in told(contest(ROWS))


def test_a_race_that_goes_on_says_to_use_nobody() -> None:
    early = {name: values[:3] for name, values in FRESH.items()}
    early["sgd"] = [0.64, 0.65, 0.66]  # as good as the leader so far
    sentences = told(contest(ROWS, fresh=early))
    assert "Use " not in sentences
    assert "nothing is settled yet" in sentences


def test_a_race_that_nobody_won_says_to_use_nobody() -> None:
    lost: Rows = {name: [None] * 10 for name in FRESH}
    assert "Use " not in told(contest(ROWS, fresh=lost))
    assert told(contest(ROWS, fresh=lost)).startswith("No finalist can be used")


def test_a_verdict_says_whom_to_use() -> None:
    assert conclude(contest(ROWS, fresh=FRESH))[0].startswith("Use adamw with ")


@pytest.mark.parametrize("fresh", [None, FRESH])
def test_a_generalisation_that_lost_is_told_with_the_command_for_more(fresh: Rows | None) -> None:
    sentences = told(contest(ROWS, fresh=fresh))
    where = "On fresh seeds" if fresh else "In the search"
    assert (
        f"{where} momentum lost to sgd, of which it is a generalisation: it was not tuned enough."
    ) in sentences
    # A multiple of the number of optimizers, as a comparison needs it.
    assert "'tuner run FILE --set budget.trials=32'" in sentences


def test_a_trial_that_ran_again_leaves_the_command_for_more_a_multiple() -> None:
    summary = contest(ROWS)
    budget = summary.spec.budget
    again = budget.model_copy(update={"trials": budget.trials + 1})
    larger = replace(summary, spec=summary.spec.model_copy(update={"budget": again}))
    assert f"--set budget.trials={2 * budget.trials}'" in " ".join(tell_comparison(larger))


def test_programs_get_curves_bands_and_shares() -> None:
    found = json.loads(json.dumps(to_json(contest(ROWS, fresh=FRESH))["comparison"]))
    assert found["target"]["reached_by"] == "adamw"
    best, sgd, *_ = found["optimizers"]
    assert (best["optimizer"], best["beats"]) == ("adamw", ["sgd", "momentum"])
    assert best["curve"] == [1.0, 0.9, 0.8, 0.5]
    assert best["speed"]["reached"] >= 5
    assert (sgd["gain"], sgd["relative_gain"]) == (1.0, 0.5)
    assert set(sgd["random"]) == {"median", "best", "worst", "open_from"}
    assert sgd["near_own"] == {
        "count": 2,
        "trials": 2,
        "low": pytest.approx(0.158, abs=1e-3),
        "high": 1.0,
    }
    undertuned = {"optimizer": "momentum", "special": "sgd", "confirmed": True}
    assert found["undertuned"] == [undertuned]


def test_tables_fit_a_terminal_of_80_columns() -> None:
    rows = {"schedulefree_adamw": ROWS["sgd"], "pytorch_optimizer:Lion": ROWS["adamw"]}
    stream = io.StringIO()
    console = TextConsole(stream)
    console.width = 80
    print_report(contest(rows), console)
    lines = stream.getvalue().splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith("What tuning brings"))
    end = next(at for at, line in enumerate(lines) if line.startswith("Best trial"))
    assert "…" not in "".join(lines[start:end])


def test_every_format_shows_the_comparison() -> None:
    summary = contest(ROWS)
    page = to_html(View(summary, {}), datetime(2026, 1, 2, tzinfo=UTC))
    for text in (page, to_markdown(summary)):
        assert "What tuning brings" in text
        assert "How hard tuning is" in text
    assert "Bands are not of these trials: they hold" in page


def drawn(summary: StudySummary) -> Chart:
    view = View(summary, {})
    chart = draw_progress(view, random_bands(view))
    assert chart is not None
    return chart


def test_each_optimizer_has_a_panel_with_its_line_and_band_and_the_others_faint() -> None:
    chart = drawn(contest(ROWS))
    assert [panel.title for panel in chart.panels] == ["adamw", "sgd", "momentum"]
    assert chart.rows[1] == ("sgd", "4", "1", "2")
    for panel in chart.panels:  # of adam no draw has a value
        svg = str(panel.drawn)
        assert svg.count('class="band ') == 1
        assert svg.count(" dotted") == 1
        assert svg.count(' best"') == 1
        assert svg.count('class="other"') == 2
    assert "the median of random search" in chart.notes[2]


def test_a_metric_that_is_to_be_large_has_its_band_the_other_way_up() -> None:
    study = {"name": "s", "workload": "models.digits:Digits", "direction": "maximize"}
    rows = {"sgd": [0.1, 0.3, 0.5, 0.6, 0.2, 0.9, 0.8, 0.9], "adamw": [0.5] * 8}
    svg = str(drawn(contest(rows, study=study)).panels[0].drawn)
    found = re.search(r'd="M([^"]*)z" class="band h0"', svg)
    assert found
    heights = [float(point.split(",")[1]) for point in found[1].split("L")]
    upper, lower = heights[: len(heights) // 2], heights[: len(heights) // 2 - 1 : -1]
    assert all(high <= low for high, low in zip(upper, lower, strict=True))
    assert upper[-1] == 0  # open: the edge of the plot
