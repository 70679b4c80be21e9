from __future__ import annotations

import json

from tests.report.summaries import mixed_summary
from tuner.domain.trials import Outcome
from tuner.report.plotly import to_figures


def test_every_value_is_a_point_over_its_learning_rate() -> None:
    summary = mixed_summary()
    rates = to_figures(summary)["learning-rates"]
    points = {
        text: (x, y, symbol)
        for trace in rates["data"]
        for text, x, y, symbol in zip(
            trace["text"], trace["x"], trace["y"], trace["marker"]["symbol"], strict=True
        )
    }
    valued = [r for r in summary.records if r.outcome in (Outcome.COMPLETE, Outcome.PRUNED)]
    told = {f"trial {r.number}": r for r in valued if r.value is not None}
    assert points.keys() == told.keys()
    for text, (_, y, symbol) in points.items():
        assert y == told[text].value
        assert (symbol == "circle") == (told[text].outcome is Outcome.COMPLETE)


def test_figures_are_json_with_a_trace_for_each_optimizer() -> None:
    figures = to_figures(mixed_summary())
    assert json.loads(json.dumps(figures)) == figures
    for figure in figures.values():
        names = [trace["name"] for trace in figure["data"]]
        assert names
        assert len(names) == len(set(names))
        assert figure["layout"]["title"]["text"].startswith("val_loss by ")


def test_values_that_are_not_above_0_have_a_linear_axis() -> None:
    summary = mixed_summary()
    assert to_figures(summary)["learning-rates"]["layout"]["yaxis"]["type"] == "log"
    records = [r for r in summary.records if r.value is not None]
    object.__setattr__(records[0], "value", -1.0)
    assert to_figures(summary)["learning-rates"]["layout"]["yaxis"]["type"] == "linear"
