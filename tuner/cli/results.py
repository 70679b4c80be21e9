"""``tuner study report``, ``export`` and ``widen``: what a study has found, and what follows."""

from __future__ import annotations

import functools
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
from click.core import ParameterSource

from tuner.cli.options import (
    F,
    console,
    echo_json,
    examples,
    find_study,
    json_option,
    quiet_option,
    storage_option,
    tell,
)
from tuner.cli.serving import Serving, serve, serving_options
from tuner.cli.words import STUDY
from tuner.errors import SpecError

if TYPE_CHECKING:
    from tuner.store import Database, StudyHandle


def output_options(command: F) -> F:
    """Adds ``--output``, ``--force`` and ``-q``."""
    command = quiet_option(command)
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


def open_option(command: F) -> F:
    """Adds ``--open``."""
    return click.option("--open", "open_", is_flag=True, help="Show the HTML page in a browser.")(
        command
    )


@click.command(
    epilog=examples(
        "tuner study report digits",
        "tuner study report digits --format html --open",
        "tuner study report digits --format html --output report.html",
        "tuner study report digits --serve --open",
        "tuner study report digits --format json | jq .best",
    )
)
@click.argument("name", type=STUDY)
@storage_option
@style_options
@open_option
@click.option(
    "--serve",
    "served",
    is_flag=True,
    help="Serve the HTML page until Ctrl-C, renewed as trials end; the options below say where.",
)
@partial(serving_options, port=8081)
@output_options
def report(
    name: str,
    storage: str | None,
    style: str,
    open_: bool,
    served: bool,
    host: str,
    port: int,
    password_file: Path | None,
    hosts: tuple[str, ...],
    output: Path | None,
    force: bool,
) -> None:
    """Report what a study has found: which optimizer to use, and what it cost.

    On a terminal, --format html writes NAME.html unless --output names another file.
    """
    from tuner.report.terminal import print_report
    from tuner.service.reports import read_report, render_summary
    from tuner.service.summaries import read_results

    if served:
        _refuse_with_serve(style, output)
        database, handle = find_study(name, storage)
        serving = Serving(host, port, password_file, hosts)
        _serve_page(database, handle, serving, shown=open_)
        return
    _refuse_without_serve()
    refuse_to_open(style, open_=open_)
    database, handle = find_study(name, storage)
    if style == "html":
        page = read_report(database, handle).render("html")
        write_page(page, name, output, force=force, shown=open_)
        return
    summary = read_results(database, handle)
    if style == "terminal" and output is None:
        print_report(summary, console())
    else:
        write(render_summary(style, summary), output, force=force)


def _refuse_with_serve(style: str, output: Path | None) -> None:
    """Refuses what would put the page elsewhere than on a server."""
    if style != "html" and (_is_given("style") or _is_given("as_json")):
        raise click.UsageError(f"--serve serves an HTML page, not {style}: leave out one of them.")
    if output is not None:
        raise click.UsageError(
            f"--output {output}: a page that is served is no file. For a file, leave out --serve."
        )


def _refuse_without_serve() -> None:
    """Refuses options that say where to serve, if nothing is served."""
    for name, flag in (("host", "--host"), ("port", "--port"), ("hosts", "--allow-host")):
        if _is_given(name):
            raise click.UsageError(f"{flag} says where to serve the page: add --serve.")


def _is_given(parameter: str) -> bool:
    source = click.get_current_context().get_parameter_source(parameter)
    return source is ParameterSource.COMMANDLINE


def _serve_page(database: Database, handle: StudyHandle, serving: Serving, *, shown: bool) -> None:
    from tuner.service.web.study_page import StudyPage

    page = StudyPage(database, handle.name)
    serve(lambda: page, f"The page of {handle.name!r}", serving, shown=shown)


def refuse_to_open(style: str, *, open_: bool) -> None:
    """Refuses ``--open`` of what is no page."""
    if open_ and style != "html":
        raise click.UsageError(f"--open shows an HTML page, not {style}: add --format html.")


def write_page(page: str, name: str, output: Path | None, *, force: bool, shown: bool) -> None:
    """Writes a page, on a terminal to a file of its own name, and shows it if asked to.

    Args:
        page: The page.
        name: What it is of.
        output: The file to write, or None.
        force: Whether to write over a file of another kind.
        shown: Whether to open it in a browser.
    """
    import sys
    import webbrowser

    from tuner.report.files import to_file_name

    if output is None and (shown or sys.stdout.isatty()):
        output = Path(f"{to_file_name(name)}.html")
    write(page, output, force=force)
    if shown and output is not None and not webbrowser.open(output.resolve().as_uri()):
        click.echo(f"No browser could be opened: open {output} yourself.", err=True)


@click.command(
    epilog=examples(
        "tuner study export digits > winner.py",
        "tuner study export digits --format toml --output studies/winner.toml",
        "tuner study export digits --trial 17",
        "tuner study export digits --format csv --output trials.csv",
        "tuner study export digits --all --format json | jq '.[].params.lr'",
    )
)
@click.argument("name", type=STUDY)
@storage_option
@click.option("--trial", type=click.IntRange(0), help="Another complete trial than the winner.")
@click.option(
    "--all", "as_table", is_flag=True, help="All trials instead, as a table: csv, json or parquet."
)
@click.option(
    "--format",
    "style",
    type=click.Choice(["python", "toml", "json", "command", "csv", "parquet"]),
    help="command is the line that trains the winner, where the study has one; csv and parquet are "
    "of all trials; parquet needs pandas. [default: python, csv of all]",
)
@output_options
def export(
    name: str,
    storage: str | None,
    trial: int | None,
    as_table: bool,
    style: str | None,
    output: Path | None,
    force: bool,
) -> None:
    """Export the winner as Python, a study file, JSON or a command; or all trials, as a table."""
    if as_table or style in _TABLES:
        if trial is not None:
            raise SpecError(f"--trial {trial}: a table is of all trials; leave out one of the two.")
        _export_table(name, storage, style or "csv", output, force=force)
        return
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
    elif style == "command":
        from tuner.report.command_line import to_command

        text = to_command(summary)
    else:
        text = to_toml(summary) if style == "toml" else to_python(summary)
    write(text, output, force=force)


@click.command(
    epilog=examples(
        "tuner study widen digits && tuner run digits.wider.toml",
        "tuner study widen digits --output studies/next.toml",
    )
)
@click.argument("name", type=STUDY)
@storage_option
@click.option("--output", type=click.Path(path_type=Path), help="The file. [NAME.wider.toml]")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@quiet_option
@json_option
def widen(name: str, storage: str | None, output: Path | None, force: bool, as_json: bool) -> None:
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
    if as_json:
        echo_json({"study": name, "file": str(path)})
    else:
        tell(f"Wrote {path}. Search on: {shlex.join(('tuner', 'run', str(path)))}", err=False)


_TABLES = ("csv", "parquet")
"""Formats that are always tables of all trials."""


def _export_table(
    name: str, storage: str | None, style: str, output: Path | None, *, force: bool
) -> None:
    import json

    from tuner.report.trial_table import describe_trials, to_csv, to_parquet
    from tuner.service.summaries import read_shown

    if style not in (*_TABLES, "json"):
        raise SpecError(f"--all --format {style}: a table is csv, json or parquet.")
    if style == "parquet" and output is None:
        raise SpecError("--format parquet: no text; name a file with --output trials.parquet")
    database, handle = find_study(name, storage)
    trials = describe_trials(handle.spec, read_shown(database, handle))
    if style == "parquet":
        write(to_parquet(trials), output, force=force)
    elif style == "csv":
        write(to_csv(trials), output, force=force)
    else:
        write(json.dumps(trials, indent=2, ensure_ascii=False), output, force=force)


def write(content: str | bytes, output: Path | None, *, force: bool) -> None:
    """Prints a report or an export, or writes it to a file, as :func:`output_options` ask.

    Args:
        content: The report or export; bytes go to a file.
        output: The file to write, or None to print.
        force: Whether to write over a file of another kind.
    """
    from tuner.report.files import write_file

    if output is None:
        click.echo(content.rstrip("\n") if isinstance(content, str) else content)
        return
    write_file(output, content, force=force)
    tell(f"Wrote {output}")
