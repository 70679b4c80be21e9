"""``tuner study diff``: two studies side by side."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuner.cli.options import console, examples, open_storage, storage_option
from tuner.cli.results import (
    open_option,
    output_options,
    refuse_to_open,
    style_options,
    write,
    write_page,
)
from tuner.cli.words import STUDY

if TYPE_CHECKING:
    from tuner.analysis.summary import StudySummary


@click.command(
    epilog=examples(
        "tuner study diff digits digits-seed1",
        "tuner study diff a b --format html --open",
        "tuner study diff a b --json",
    )
)
@click.argument("one", type=STUDY)
@click.argument("other", type=STUDY)
@storage_option
@style_options
@open_option
@output_options
def diff(
    one: str,
    other: str,
    storage: str | None,
    style: str,
    open_: bool,
    output: Path | None,
    force: bool,
) -> None:
    """Show two studies side by side: the settings in which they differ, and what each found."""
    from tuner.report.difference import warn_of_difference
    from tuner.report.terminal import print_difference
    from tuner.service.summaries import read_summary
    from tuner.store import Studies

    refuse_to_open(style, open_=open_)
    database = open_storage(storage)
    left, right = [read_summary(database, Studies(database).find(name)) for name in (one, other)]
    if style == "html":
        from tuner.report.html import to_difference_html

        page = to_difference_html(left, right, datetime.now(UTC))
        write_page(page, f"{one}-{other}", output, force=force, shown=open_)
        return
    if style == "terminal" and output is None:
        print_difference(left, right, console())
    else:
        write(_render(style, left, right), output, force=force)
    doubt = warn_of_difference(left, right)
    if doubt is not None and style == "terminal":
        click.echo(doubt, err=True)


def _render(style: str, one: StudySummary, other: StudySummary) -> str:
    if style == "json":
        from tuner.report.difference import to_difference_json

        return json.dumps(to_difference_json(one, other), indent=2, ensure_ascii=False)
    if style == "markdown":
        from tuner.report.markdown import to_difference_markdown

        return to_difference_markdown(one, other)
    from tuner.report.terminal import TextConsole, print_difference

    text = io.StringIO()
    print_difference(one, other, TextConsole(text))
    return text.getvalue()
