"""A study's report as Markdown, for pull requests and notes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tuner.analysis.summary import StudySummary
from tuner.domain.objective import tell_aim
from tuner.domain.printable import printable
from tuner.report.answer import Answer
from tuner.report.comparison import comparison_tables
from tuner.report.difference import difference_tables, warn_of_difference
from tuner.report.suite_tables import suite_tables
from tuner.report.suite_words import conclude_suite, tell_suite
from tuner.report.tables import TextTable, best_tables, facts, number, ranking, settings
from tuner.report.wrapping import break_command

if TYPE_CHECKING:
    from tuner.analysis.suite import SuiteSummary

_MARKUP = re.compile(r"[\\`*_\[\]<>&|~$!#]")
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


def to_markdown(summary: StudySummary) -> str:
    """Returns a study's report as Markdown."""
    spec = summary.spec
    tables = [ranking(summary), *comparison_tables(summary), *best_tables(summary), facts(summary)]
    return "\n\n".join(
        [
            f"# {_escape(summary.name)}",
            f"`{spec.study.workload}`, {tell_aim(spec.study, mark='`')}",
            *_draw_answer(summary),
            *(_draw(table) for table in tables),
            *_draw_advice(summary),
        ]
    )


def to_card(summary: StudySummary) -> str:
    """Returns a study's answer as Markdown: whom to use, how sure that is, and what to do next.

    It is what stands where a study is met in passing: in a notebook, and as its note in Optuna
    Dashboard.

    Args:
        summary: The study, with its advice where that is to be told.
    """
    best = summary.best
    metrics = {} if best is None else best.record.attributes.get("metrics", {})
    rows = [] if best is None else [*settings(summary).rows]
    when = "at its best evaluation" if summary.spec.study.rank_by == "best" else "measured last"
    rows += [(f"{name}, {when}", number(value)) for name, value in metrics.items()]
    named = f"study {summary.name}"
    if best is not None:
        named += f", {best.config.optimizer} with {best.config.schedule}"
    return "\n\n".join(
        [
            *_draw_answer(summary),
            *([_draw(TextTable(named, ("setting", "value"), tuple(rows)))] if rows else []),
            *_draw_advice(summary),
            *_draw_commands(summary),
        ]
    )


def _draw_answer(summary: StudySummary) -> list[str]:
    """Returns the sentences of the answer: whom to use, how sure that is, and what is doubtful."""
    answer = Answer.of(summary)
    doubts = [" ".join(map(_escape, answer.doubts))] if answer.doubts else []
    return [f"**{_escape(answer.verdict)}**", f"*{_escape(answer.standing)}*", *doubts]


def _draw_commands(summary: StudySummary) -> list[str]:
    """Returns the commands that go on from the answer, as a block of code."""
    commands = [("tuner", "study", "report", summary.name)]
    if summary.best is not None and summary.spec.confirmation is None:
        commands.append(("tuner", "study", "export", summary.name))
    return [_fence("\n".join(shlex.join(command) for command in commands))]


def _draw_advice(summary: StudySummary) -> list[str]:
    """Returns the advice on a study, each piece with its command as a block of code."""
    if not summary.advice:
        return []
    parts = ["## What next"]
    for advice in summary.advice:
        parts.append(f"{_escape(advice.sentence)}\n\n{_fence(advice.command)}")
    return parts


def _fence(command: str) -> str:
    """Returns commands as a block of code."""
    shown = printable("\n".join(map(break_command, command.splitlines())), lines=True)
    # A fence ends only at one that is as long.
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", shown)), default=0))
    return f"{fence}sh\n{shown}\n{fence}"


def to_suite_markdown(summary: SuiteSummary) -> str:
    """Returns a suite's report as Markdown."""
    verdict, *doubts = conclude_suite(summary)
    return "\n\n".join(
        [
            f"# {_escape(summary.name)}",
            _escape(tell_suite(summary)),
            f"**{_escape(verdict)}**",
            *([" ".join(map(_escape, doubts))] if doubts else []),
            *map(_draw, suite_tables(summary)),
        ]
    )


def to_difference_markdown(one: StudySummary, other: StudySummary) -> str:
    """Returns two studies side by side as Markdown."""
    doubt = warn_of_difference(one, other)
    return "\n\n".join(
        [
            f"# {_escape(one.name)} and {_escape(other.name)}",
            *([f"**{_escape(doubt)}**"] if doubt else []),
            *map(_draw, difference_tables(one, other)),
        ]
    )


def _draw(table: TextTable) -> str:
    lines = [
        f"## {_escape(table.title)}\n",
        _row(map(_escape, table.columns)),
        _row("---" if index == 0 else "---:" for index in range(len(table.columns))),
        *(_row(map(_escape, row)) for row in table.rows),
    ]
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _escape(text: str) -> str:
    """Returns a text as one line whose markup is escaped: no link, no table, no HTML."""
    return _MARKUP.sub(lambda match: _ENTITIES.get(match[0], f"\\{match[0]}"), printable(text))
