"""Options that several commands share, and the databases, studies and consoles they name."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tuner.cli.streams import below
from tuner.cli.words import OPTIMIZER_NAMES, STUDY, TEXT
from tuner.domain.allowed_commands import allow_commands
from tuner.domain.command import read_line
from tuner.domain.fuse_plan import AUTO, parse_fuse
from tuner.domain.imports import allow
from tuner.domain.spec import StudySpec
from tuner.domain.vouching import vouch_for_study
from tuner.errors import SpecError
from tuner.service.description import describe_study
from tuner.service.ranks import PROCESSES

if TYPE_CHECKING:
    from rich.console import Console

    from tuner.service.study_run import Display
    from tuner.store import Database, StudyHandle

F = TypeVar("F", bound=Callable[..., Any])

STARTED_AT = time.monotonic()
"""The monotonic time, in seconds, at which this process began to load, before heavy imports."""


def examples(*lines: str) -> str:
    """Returns the end of a help text that shows example commands."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def storage_option(command: F) -> F:
    """Adds ``--storage``."""
    return click.option(
        "--storage",
        metavar="URL",
        callback=warn_of_secret,
        help="The database. [default: $TUNER_STORAGE, else the URL in the file "
        "$TUNER_STORAGE_FILE, else sqlite:///tuner.db]",
    )(command)


def warn_of_secret(ctx: click.Context, param: click.Parameter, url: str | None) -> str | None:
    """Warns of a password in an option's URL, which it returns."""
    if url is not None and not ctx.resilient_parsing:  # as when the Tab key asks what may follow
        from tuner.store.connection.urls import holds_secret

        if holds_secret(url):
            click.echo(
                f"Warning: {param.opts[0]} holds a password, which the list of processes shows to "
                "everyone on this machine. Put the URL into TUNER_STORAGE, or into a file that "
                "TUNER_STORAGE_FILE names.",
                err=True,
            )
    return url


def allow_option(command: F) -> F:
    """Adds ``--allow`` and ``--allow-command``, which tell workers by the environment."""
    command = click.option(
        "--allow-command",
        multiple=True,
        metavar="WORDS",
        expose_value=False,
        callback=lambda _ctx, _param, lines: allow_commands(lines),
        help="The first words of a command that the study may run, such as 'python train.py'; a "
        "study file that you give yourself needs none. Repeatable.",
    )(command)
    return click.option(
        "--allow",
        multiple=True,
        metavar="PACKAGE",
        expose_value=False,
        callback=lambda _ctx, _param, packages: allow(packages),
        help="A package that the study may import code from; without any, it may import what lies "
        "in the working directory. Repeatable.",
    )(command)


def json_option(command: F) -> F:
    """Adds ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(
        command
    )


def report_json_option(command: F) -> F:
    """Adds ``--json`` to a command that trains and then reports."""
    return click.option("--json", "as_json", is_flag=True, help="Report as JSON, for programs.")(
        command
    )


def quiet_option(command: F) -> F:
    """Adds ``-q``, which :func:`tell` and the displays of a study heed."""
    return click.option(
        "-q",
        "--quiet",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_keep_quiet,
        help="Say nothing but the result, warnings and errors.",
    )(command)


def _keep_quiet(ctx: click.Context, _param: click.Parameter, quiet: bool) -> None:
    ctx.meta[_QUIET] = quiet


_QUIET = "tuner.quiet"


def is_quiet() -> bool:
    """Tells whether the command that runs was asked to be quiet."""
    return bool(click.get_current_context().meta.get(_QUIET))


def tell(text: str, *, err: bool = True) -> None:
    """Prints a note, unless the command is to be quiet.

    Args:
        text: The note.
        err: Whether it stands beside a result, so that it goes to standard error.
    """
    if not is_quiet():
        click.echo(text, err=err)


def device_option(command: F, *, purpose: str = "Where to train.") -> F:
    """Adds ``--device``."""
    return click.option(
        "--device",
        default="auto",
        show_default=True,
        metavar="auto|cpu|cuda|cuda:0|mps",
        help=purpose,
    )(command)


def fuse_option(command: F) -> F:
    """Adds ``--fuse``."""
    return click.option(
        "--fuse",
        default=AUTO,
        show_default=True,
        metavar="auto|off|N",
        callback=_parse_fuse,
        help="How many trials train as one: auto measures what is fastest, once for each study and "
        "kind of device; off trains one at a time.",
    )(command)


def processes_option(command: F) -> F:
    """Adds ``--processes``, which tells workers by the environment."""
    return click.option(
        "--processes",
        "--gpus-per-trial",
        type=click.IntRange(1, 64),
        expose_value=False,
        callback=_tell_processes,
        help="How many processes train each trial together, as DDP has it; on GPUs each has one of "
        "its own. A command starts its own processes. [default: 1]",
    )(command)


def _tell_processes(_ctx: click.Context, _param: click.Parameter, processes: int | None) -> None:
    if processes is not None:
        os.environ[PROCESSES] = str(processes)


def _parse_fuse(ctx: click.Context, _param: click.Parameter, text: str) -> str:
    return text if ctx.resilient_parsing else parse_fuse(text)


def workers_option(command: F) -> F:
    """Adds ``--workers``."""
    return click.option(
        "--workers",
        default=1,
        show_default=True,
        type=click.IntRange(1, 64),
        help="Worker processes; they share the cores, unless OMP_NUM_THREADS says how many threads "
        "each takes.",
    )(command)


def spec_options(command: F) -> F:
    """Adds a study file and the options that stand in for one."""
    for decorate in reversed(
        (
            click.argument("spec", required=False, metavar="[SPEC.toml]", type=click.Path()),
            click.option(
                "--name",
                type=TEXT,
                help="The study's name. [default: study.name, else the file's name without .toml; "
                "without a file, the workload's]",
            ),
            click.option("--workload", metavar="MODULE:NAME", help="What to train."),
            click.option(
                "--command",
                metavar="WORDS",
                help="A command to train instead, such as 'python train.py --lr={lr}'.",
            ),
            click.option(
                "--optimizers",
                type=OPTIMIZER_NAMES,
                metavar="A,B",
                help="Which optimizers compete.",
            ),
            click.option(
                "--warm-start",
                type=STUDY,
                metavar="auto|NAME|off",
                help="Start a new study with the best of an earlier one of the database: of NAME, "
                "or of whichever fits. [default: search.warm_start, else off]",
            ),
            click.option(
                "--set",
                "settings",
                type=TEXT,
                multiple=True,
                metavar="KEY=VALUE",
                help="Replace a value of the study file, such as budget.trials=20. Of a study that "
                "exists, only the budget can change. Repeatable.",
            ),
        )
    ):
        command = decorate(command)
    return command


def load_spec(
    spec: str | None,
    *,
    name: str | None,
    workload: str | None,
    command: str | None,
    optimizers: str | None,
    warm_start: str | None,
    settings: tuple[str, ...],
    storage: str | None,
) -> StudySpec:
    """Returns the study that a file and options describe, and allows the code that it names.

    Args:
        spec: The study file, or None.
        name: The study's name, or None, like all others where the option was not given.
        workload: The workload.
        command: The command that trains instead of one, as a line.
        optimizers: The optimizers, separated by commas.
        warm_start: The earlier study to start from.
        settings: Values to replace.
        storage: The database's URL. A study in it may be what a missing file was meant to be.

    Raises:
        NotFoundError: If the file does not exist.
        SpecError: If something in it breaks a rule.
    """
    if spec is None and workload is None and command is None:
        raise SpecError("Give a study file, --workload or --command: tuner run studies/digits.toml")
    words = None if command is None else read_line(command, "--command")
    given = {
        "study.workload": workload,
        "study.command": words,
        "study.name": name,
        "space.optimizers": optimizers and [o.strip() for o in optimizers.split(",")],
        "search.warm_start": warm_start,
    }
    origin = spec or "the options given"
    parsed = describe_study(spec, given, settings, origin=origin, storage=storage)
    vouch_for_study(parsed)
    return parsed


def open_storage(storage: str | None, *, create: bool = False) -> Database:
    """Opens the database that ``--storage`` names, else the default one, until the command ends.

    Args:
        storage: The database's URL, or None for the default one.
        create: Whether to make the database where there is none.
    """
    from tuner.store import default_url, open_database

    database = open_database(storage or default_url(), create=create)
    click.get_current_context().call_on_close(database.close)
    return database


def find_study(name: str, storage: str | None) -> tuple[Database, StudyHandle]:
    """Opens the database that ``--storage`` names, and finds a study in it.

    Raises:
        NotFoundError: If there is no such database, or no such study in it.
    """
    from tuner.store import Studies

    database = open_storage(storage)
    return database, Studies(database).find(name)


def console(*, stderr: bool = False) -> Console:
    """Returns a console that reads no markup in texts, and colours them only on a terminal."""
    from tuner.report.terminal import TextConsole

    return TextConsole(below(sys.stderr if stderr else sys.stdout))


def open_display(*, tell_workers: bool = False) -> Display:
    """Returns a display on standard error; its warnings come again as the command ends.

    Args:
        tell_workers: Whether lines tell which workers come and go.
    """
    from tuner.service.display.progress import choose_display

    out = console(stderr=True)
    display = choose_display(out, quiet=is_quiet(), tell_workers=tell_workers)
    click.get_current_context().call_on_close(display.recall)
    return display


def echo_json(value: Any) -> None:
    """Prints a value as JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def echo_toml(value: dict[str, Any]) -> None:
    """Prints a table as TOML; a choice of None, which TOML does not know, as the text ``none``."""
    import tomli_w

    click.echo(tomli_w.dumps(_without_none(value)))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(one) for key, one in value.items()}
    if isinstance(value, list):
        return ["none" if one is None else _without_none(one) for one in value]
    return value
