"""A study's report as one HTML page, which loads nothing and can be read without JavaScript."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from importlib import resources
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from tuner.analysis.summary import StudySummary
from tuner.domain.objective import tell_aim
from tuner.domain.printable import printable
from tuner.report.answer import Answer
from tuner.report.charts.bars import draw_cost, draw_importance, draw_rungs
from tuner.report.charts.curves import draw_curves, draw_winner
from tuner.report.charts.finalists import draw_finalists
from tuner.report.charts.knobs import draw_momenta, draw_rates
from tuner.report.charts.pair import draw_pair, palette_of
from tuner.report.charts.palette import Palette, define_symbols, write_hues, write_paper
from tuner.report.charts.parallel import draw_parallel
from tuner.report.charts.profiles import draw_profiles
from tuner.report.charts.progress import draw_progress, random_bands
from tuner.report.charts.rate_range import draw_rate_range
from tuner.report.charts.schedules import draw_averages, draw_schedules
from tuner.report.charts.svg import Chart
from tuner.report.charts.timeline import draw_timeline
from tuner.report.charts.view import View
from tuner.report.code import to_python, to_toml
from tuner.report.comparison import comparison_tables
from tuner.report.difference import difference_tables, warn_of_difference
from tuner.report.provenance import commands, provenance, study_file, tell_time
from tuner.report.suite_tables import suite_tables
from tuner.report.suite_words import conclude_suite, tell_suite
from tuner.report.tables import TextTable, best_tables, facts, finalists, ranking, settings
from tuner.report.trial_rows import head, trial_rows
from tuner.report.wrapping import break_command

if TYPE_CHECKING:
    from tuner.analysis.rate_range import RateCurve
    from tuner.analysis.suite import SuiteSummary

_FOLDER = "templates/page"


@dataclass(frozen=True)
class Code:
    """The winner as code.

    Attributes:
        name: What the tab is called.
        text: The code.
    """

    name: str
    text: str


def to_html(view: View, now: datetime, live: str | None = None) -> str:
    """Returns a study's report as an HTML page.

    Args:
        view: The study.
        now: When the page is made, in UTC.
        live: The version of a page whose server renews it as trials end; None for a page in a file.
    """
    summary = view.summary
    ranked, untried = _tried(ranking(summary))
    return _template("page.html.jinja").render(
        aim=tell_aim(summary.spec.study),
        summary=summary,
        **_card(summary),
        symbols=define_symbols(),
        style=_style(),
        theme_script=_asset("theme.js"),
        script=_asset("page.js"),
        live=live,
        live_script=_asset("live.js"),
        codes=_codes(summary),
        winner=draw_winner(view),
        ranked=ranked,
        untried=untried,
        tables=_other_tables(summary),
        sections=_sections(view),
        advice=[replace(one, command=break_command(one.command)) for one in summary.advice],
        trial_head=head(view),
        trials=trial_rows(view),
        omission=view.omission,
        provenance=provenance(view, now),
        study_file=study_file(view),
        commands=commands(view),
    )


def to_suite_html(summary: SuiteSummary) -> str:
    """Returns a suite's report as an HTML page."""
    verdict, *doubts = conclude_suite(summary)
    palette = Palette(summary.optimizers)
    return _template("suite.html.jinja").render(
        about=tell_suite(summary),
        summary=summary,
        verdict=verdict,
        doubts=doubts,
        key=palette.key(summary.steps[0].optimizer) if summary.steps else None,
        profiles=draw_profiles(summary),
        theme_script=_asset("theme.js"),
        tables=suite_tables(summary),
        symbols=define_symbols(),
        style=_style(),
    )


def to_difference_html(one: StudySummary, other: StudySummary, now: datetime) -> str:
    """Returns two studies side by side as an HTML page.

    Args:
        one: A study.
        other: Another one.
        now: When the page is made, in UTC.
    """
    doubt = warn_of_difference(one, other)
    palette = palette_of(one, other)
    answers = [{"name": summary.name, **_card(summary, palette)} for summary in (one, other)]
    return _template("difference.html.jinja").render(
        names=(one.name, other.name),
        about="The settings in which two studies differ, and what each has found.",
        cards=answers,
        doubt=doubt,
        pair=draw_pair(one, other) if doubt is None else None,
        tables=difference_tables(one, other),
        made=tell_time(now),
        theme_script=_asset("theme.js"),
        symbols=define_symbols(),
        style=_style(),
    )


def to_rates_html(workload: str, about: str, curves: Sequence[RateCurve], toml: str) -> str:
    """Returns a learning-rate range test as an HTML page.

    Args:
        workload: The workload's name.
        about: How it was tested, in a sentence.
        curves: The losses of each optimizer.
        toml: What it found, as tables of a study file; empty if that is nothing.
    """
    return _template("rate_range.html.jinja").render(
        workload=printable(workload),
        about=printable(about),
        chart=draw_rate_range(curves),
        toml=printable(toml, lines=True).strip(),
        theme_script=_asset("theme.js"),
        symbols=define_symbols(),
        style=_style(),
    )


def to_card(summary: StudySummary) -> str:
    """Returns a study's answer as a piece of HTML with its own style, for notebooks and notes."""
    return _template("card.html.jinja").render(
        **_card(summary), symbols=define_symbols(), theme=_theme(), rules=_rules()
    )


def _card(summary: StudySummary, palette: Palette | None = None) -> dict[str, Any]:
    """Returns the variables of the template of the answer."""
    answer = Answer.of(summary)
    palette = palette or Palette(summary.spec.space.optimizers)
    key = None if answer.optimizer is None else palette.key(answer.optimizer)
    return {"answer": answer, "key": key}


def _sections(view: View) -> list[tuple[str, str, list[Chart]]]:
    """Returns the sections of charts: their anchors, headings and charts, if they have any."""
    drawn = (
        ("rates", "Learning rates", [draw_rates(view)]),
        ("sure", "How sure", [draw_finalists(view), draw_progress(view, random_bands(view))]),
        (
            "more",
            "More of the study",
            [
                draw_curves(view),
                *draw_importance(view),
                draw_momenta(view),
                draw_schedules(view),
                draw_averages(view),
                draw_parallel(view),
                draw_rungs(view),
                draw_timeline(view),
                draw_cost(view),
            ],
        ),
    )
    known = [(name, title, [c for c in charts if c is not None]) for name, title, charts in drawn]
    return [section for section in known if section[2]]


def _other_tables(summary: StudySummary) -> list[TextTable]:
    """Returns the tables that no chart and no card of the page shows."""
    shown = {settings(summary).title}
    if summary.confirmed is not None:
        shown.add(finalists(summary.confirmed).title)
    kept = [table for table in best_tables(summary) if table.title not in shown]
    kept = [table for table in kept if not table.title.startswith("Parameter groups")]
    return [*comparison_tables(summary), *kept, facts(summary)]


def _tried(table: TextTable) -> tuple[TextTable, list[str]]:
    """Returns the ranking of the optimizers that ran, and the names of the others."""
    at = table.columns.index("trials")
    kept = [place for place, row in enumerate(table.rows) if row[at] != "0"]
    line = None if table.line is None else sum(place < table.line for place in kept)
    tried = replace(
        table,
        rows=tuple(table.rows[place] for place in kept),
        lit=kept.index(table.lit) if table.lit in kept else None,
        line=line if line != len(kept) else None,
    )
    return tried, [row[0] for row in table.rows if row[at] == "0"]


def _codes(summary: StudySummary) -> list[Code]:
    """Returns the winner as code to copy; nothing where there is no winner."""
    if summary.best is None or summary.spec.confirmation is not None:
        return []
    python = (
        "import tuner\n\n"
        f"winner = tuner.best({summary.name!r})\n"
        "optimizer = winner.optimizer(model)\n"
        "schedule = winner.schedule(optimizer)  # call schedule.step() as the loop did\n"
    )
    texts = {"torch": to_python(summary), "tuner": python, "TOML": to_toml(summary)}
    return [Code(name, printable(text, lines=True).rstrip()) for name, text in texts.items()]


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("tuner.report", _FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _template(name: str) -> jinja2.Template:
    return _environment().get_template(name)


def _style() -> Markup:
    """Returns the style sheet of a page."""
    return Markup(":root{{\n{}}}\n{}\n{}").format(_theme(), _rules(), _asset("style.css"))


def _theme() -> Markup:
    """Returns the declarations of all colours but the optimizers'."""
    return Markup(f"{write_paper()}\n{_asset('theme.css')}")  # noqa: S704 (our own)


def _rules() -> Markup:
    """Returns the rules that the card and the page have in common."""
    return Markup(f"{write_hues()}\n{_asset('card.css')}")  # noqa: S704 (our own)


def _asset(name: str) -> Markup:
    text = resources.files("tuner.report").joinpath(_FOLDER, name).read_text(encoding="utf-8")
    return Markup(text)  # noqa: S704 (our own)
