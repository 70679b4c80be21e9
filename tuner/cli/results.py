"""``tuner study report``, ``export`` and ``widen``: what a study has found, and what follows."""

from __future__ import annotations

import functools
import io
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from tuner.cli.options import TEXT, F, console, examples, find_study, storage_option

if TYPE_CHECKING:
    from tuner.analysis.summary import StudySummary
    from tuner.store import Database, StudyHandle


def output_options(command: F) -> F:
    """Adds ``--output`` and ``--force``."""
    command = click.option(
        "--force",
        is_flag=True,
        help="Overwrite a file even if it is not a report or export of tuner.",
    )(command)
    return click.option("--output", type=click.Path(path_type=Path), help="Write to a file.")(
        command
    )


_STYLES = ["terminal", "json", "markdown", "html"]


def style_options(command: F) -> F:
    """Adds ``--format``, of a report, and ``--json``, which a command gets as ``style``."""

    @functools.wraps(command)
    def choose(*args: Any, style: str | None, as_json: bool, **options: Any) -> Any:
        if as_json and style not in (None, "json"):
            raise click.UsageError(f"--format {style} and --json contradict: give one of them.")
        return command(*args, style="json" if as_json else style or _STYLES[0], **options)

    choose = click.option("--json", "as_json", is_flag=True, help="The same as --format json.")(
        choose
    )
    choose = click.option(
        "--format", "style", type=click.Choice(_STYLES), help=f"[default: {_STYLES[0]}]"
    )(choose)
    return cast("F", choose)


@click.command(
    epilog=examples(
        "tuner study report digits",
        "tuner study report digits --format html --open",
        "tuner study report digits --format html --output report.html",
        "tuner study report digits --format json | jq .best",
    )
)
@click.argument("name", type=TEXT)
@storage_option
@style_options
@click.option("--open", "open_", is_flag=True, help="Show the HTML page in a browser.")
@output_options
def report(
    name: str, storage: str | None, style: str, open_: bool, output: Path | None, force: bool
) -> None:
    """Report what a study has found: which optimizer to use, and what it cost.

    On a terminal, --format html writes NAME.html unless --output names another file.
    """
    from tuner.report.terminal import print_report
    from tuner.service.summaries import read_results

    if open_ and style != "html":
        raise click.UsageError(f"--open shows an HTML page, not {style}: add --format html.")
    database, handle = find_study(name, storage)
    if style == "html":
        _write_page(database, handle, output, force=force, shown=open_)
        return
    summary = read_results(database, handle)
    if style == "terminal" and output is None:
        print_report(summary, console())
    else:
        write(_render(style, summary), output, force=force)


def _write_page(
    database: Database, handle: StudyHandle, output: Path | None, *, force: bool, shown: bool
) -> None:
    """Writes a study's page, on a terminal to a file of its name, and shows it if asked to."""
    import sys
    import webbrowser

    from tuner.report.files import to_file_name
    from tuner.service.pages import read_page

    page = read_page(database, handle)
    if output is None and (shown or sys.stdout.isatty()):
        output = Path(f"{to_file_name(handle.name)}.html")
    write(page, output, force=force)
    if shown and output is not None and not webbrowser.open(output.resolve().as_uri()):
        click.echo(f"No browser could be opened: open {output} yourself.", err=True)


@click.command(
    epilog=examples(
        "tuner study export digits > winner.py",
        "tuner study export digits --format toml --output studies/winner.toml",
        "tuner study export digits --trial 17",
    )
)
@click.argument("name", type=TEXT)
@storage_option
@click.option("--trial", type=click.IntRange(0), help="Another complete trial than the winner.")
@click.option(
    "--format",
    "style",
    type=click.Choice(["python", "toml", "json"]),
    default="python",
    show_default=True,
)
@output_options
def export(
    name: str,
    storage: str | None,
    trial: int | None,
    style: str,
    output: Path | None,
    force: bool,
) -> None:
    """Export the winner: as Python code that builds it, as a study file, or as JSON."""
    import json

    from tuner.analysis.summary import choose_trial
    from tuner.report.code import to_python, to_toml, to_winner
    from tuner.service.summaries import read_summary

    database, handle = find_study(name, storage)
    summary = read_summary(database, handle)
    if trial is not None:
        summary = choose_trial(summary, trial)
    if style == "json":
        text = json.dumps(to_winner(summary), indent=2)
    else:
        text = to_toml(summary) if style == "toml" else to_python(summary)
    write(text, output, force=force)


@click.command(
    epilog=examples(
        "tuner study widen digits && tuner run digits.wider.toml",
        "tuner study widen digits --output studies/next.toml",
    )
)
@click.argument("name", type=TEXT)
@storage_option
@click.option("--output", type=click.Path(path_type=Path), help="The file. [NAME.wider.toml]")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
def widen(name: str, storage: str | None, output: Path | None, force: bool) -> None:
    """Write the study file that follows a study: wider where its best trials end a range.

    The new study starts with the best of this one. Each wider range has its reason beside it.
    """
    from tuner.report.files import write_file
    from tuner.report.wider_file import wider_name, write_wider
    from tuner.service.summaries import read_summary

    database, handle = find_study(name, storage)
    text = write_wider(read_summary(database, handle))
    path = Path(f"{wider_name(name)}.toml") if output is None else output
    write_file(path, text, force=force, is_study=True)
    click.echo(f"Wrote {path}. Search on: {shlex.join(('tuner', 'run', str(path)))}")


def _render(style: str, summary: StudySummary) -> str:
    import json

    if style == "json":
        from tuner.report.json import to_json

        return json.dumps(to_json(summary), indent=2, ensure_ascii=False)
    if style == "markdown":
        from tuner.report.markdown import to_markdown

        return to_markdown(summary)
    from tuner.report.terminal import TextConsole, print_report

    text = io.StringIO()
    print_report(summary, TextConsole(text))
    return text.getvalue()


def write(text: str, output: Path | None, *, force: bool) -> None:
    """Prints a report or an export, or writes it to a file, as :func:`output_options` ask.

    Args:
        text: The report or export.
        output: The file to write, or None to print.
        force: Whether to write over a file of another kind.
    """
    from tuner.report.files import write_file

    if output is None:
        click.echo(text.rstrip("\n"))
        return
    write_file(output, text, force=force)
    click.echo(f"Wrote {output}", err=True)
