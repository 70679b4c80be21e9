"""A study's report for a terminal, in colour where it has any."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, TextIO

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from tuner.analysis.summary import StudySummary
from tuner.domain.objective import tell_aim
from tuner.domain.printable import printable
from tuner.report.comparison import comparison_tables
from tuner.report.conclusion import conclude
from tuner.report.difference import difference_tables
from tuner.report.suite_tables import suite_tables
from tuner.report.suite_words import conclude_suite, tell_suite
from tuner.report.tables import TextTable, best_tables, facts, ranking

if TYPE_CHECKING:
    from tuner.analysis.suite import SuiteSummary

_ADVICE = 5
"""The pieces of advice that a terminal shows: more are not read."""


_UNBOUNDED = 10_000
"""Columns of what no terminal shows: more than any table or sentence has."""


class TextConsole(Console):
    """A console that prints text literally: no markup, and no characters that a terminal obeys.

    Where no terminal shows it, lines are as long as their text, and do not end in spaces.

    Args:
        stream: The file that it prints to.
        plain: Whether the text has no colours, whatever the environment asks for.
    """

    def __init__(self, stream: TextIO, *, plain: bool = False) -> None:
        self._shown = stream.isatty()
        width = None if self._shown else _UNBOUNDED
        super().__init__(
            file=stream,
            width=width,
            markup=False,
            emoji=False,
            highlight=False,
            force_jupyter=False,  # a stream gets text, in a notebook too
            force_terminal=False if plain else None,
        )

    def print(self, *objects: Any, **options: Any) -> None:
        """Prints objects as Rich does, to a terminal or not."""
        if self._shown:
            super().print(*objects, **options)
            return
        with self.capture() as captured:
            super().print(*objects, **options)
        *lines, rest = captured.get().split("\n")
        self.file.write("".join(f"{line.rstrip()}\n" for line in lines) + rest)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yields the segments to print; only the console's own control characters are left in."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(printable(text, lines=True), style)


def render(summary: StudySummary) -> RenderableType:
    """Returns a study's report for a console to print."""
    spec = summary.spec
    head = Text.assemble(
        (printable(summary.name), "bold"),
        f"  {spec.study.workload}, {tell_aim(spec.study)}\n",
    )
    verdict, *doubts = conclude(summary)
    words = Text.assemble("\n", (verdict, "bold green" if summary.best else "bold yellow"))
    for sentence in doubts:
        words.append(f"\n{sentence}", "default")
    shown = (ranking(summary), *comparison_tables(summary), *best_tables(summary))
    tables = [FittedTable(table) for table in shown]
    return Group(head, *tables, FittedTable(facts(summary)), words, *_draw_advice(summary))


def _draw_advice(summary: StudySummary) -> list[Text]:
    """Returns the first pieces of advice, each with its command on a line of its own."""
    if not summary.advice:
        return []
    words = [Text("\nWhat next", "bold")]
    for advice in summary.advice[:_ADVICE]:
        words.append(Text(printable(advice.sentence)))
        # A command that was broken into lines could not be copied.
        words.append(Text(f"    {printable(advice.command)}", no_wrap=True, overflow="ignore"))
    more = len(summary.advice) - _ADVICE
    if more > 0:
        report = shlex.join(("tuner", "study", "report", summary.name, "--format", "markdown"))
        words.append(Text(printable(f"{more} more: {report}")))
    return words


class FittedTable:
    """A table for a console, which leaves out its last columns where they do not fit.

    Args:
        table: The table; the row that is lit up is green.
        compact: Whether to draw it without lines and title, for a display that changes.
    """

    def __init__(self, table: TextTable, *, compact: bool = False) -> None:
        self._table, self._compact = table, compact
        pairs = len(table.columns) == 2
        self._wordy = 1 if pairs else 0  # the column that may take several lines
        self._left = (0, 1) if pairs else (0,)
        self._widths = [self._measure(index) for index in range(len(table.columns))]

    def _measure(self, index: int) -> int:
        """Returns the least width of a column: heads and words break at spaces, numbers never."""
        cells = [row[index] for row in self._table.rows]
        parts = " ".join(cells).split() if index == self._wordy else cells
        widest = max(map(len, [*parts, *self._table.columns[index].split()]), default=0)
        return min(widest, _WIDEST)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields the table, and a line that names the columns that are left out."""
        shown = len(self._widths)
        while shown > 2 and sum(self._widths[:shown]) + self._gaps(shown) > options.max_width:
            shown -= 1
        yield self._draw(shown)
        left_out = self._table.columns[shown:]
        if left_out:
            words = f"Left out, since the terminal is narrow: {', '.join(left_out)}"
            yield Text(words, "dim", no_wrap=self._compact, overflow="ellipsis")

    def _gaps(self, shown: int) -> int:
        """Returns the spaces between and around so many columns."""
        return 2 * (shown - 1) if self._compact else 3 * shown + 1

    def _draw(self, shown: int) -> Table:
        table = self._table
        if self._compact:
            drawn = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
        else:
            drawn = Table(title=Text(table.title), title_justify="left", title_style="bold")
            drawn.box = box.SIMPLE_HEAD
        for index, column in enumerate(table.columns[:shown]):
            justify: Literal["left", "right"] = "left" if index in self._left else "right"
            least = self._widths[index]
            drawn.add_column(column, justify=justify, min_width=least, overflow="fold")
        for index, row in enumerate(table.rows):
            if index == table.line:
                drawn.add_section()
            drawn.add_row(*map(Text, row[:shown]), style="green" if index == table.lit else "")
        return drawn


_WIDEST = 30
"""Characters of a word or number that is never broken."""


def print_report(summary: StudySummary, console: Console) -> None:
    """Prints a study's report on a console."""
    console.print(render(summary), crop=False)


def print_difference(one: StudySummary, other: StudySummary, console: Console) -> None:
    """Prints two studies side by side on a console."""
    for table in difference_tables(one, other):
        console.print(FittedTable(table))


def print_suite(summary: SuiteSummary, console: Console) -> None:
    """Prints a suite's report on a console."""
    head = Text.assemble((printable(summary.name), "bold"), f"  {tell_suite(summary)}\n")
    verdict, *doubts = conclude_suite(summary)
    words = Text.assemble("\n", (verdict, "bold green" if summary.steps else "bold yellow"))
    for sentence in doubts:
        words.append(f"\n{sentence}", "default")
    tables = (FittedTable(table) for table in suite_tables(summary))
    console.print(Group(head, *tables, words), crop=False)
