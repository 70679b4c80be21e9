"""Options that several commands share, and how what they hold is shown."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tuner.domain.imports import allow, vouch_for
from tuner.domain.spec import StudySpec
from tuner.domain.study_file import apply_settings, parse_spec, read_spec, set_value
from tuner.errors import SpecError

if TYPE_CHECKING:
    from rich.console import Console

    from tuner.store import Database

F = TypeVar("F", bound=Callable[..., Any])

STARTED_AT = time.time()
"""When this process started to load, seconds since 1970: before anything heavy is imported."""


def examples(*lines: str) -> str:
    """Returns an epilog that shows commands as typed."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def storage_option(command: F) -> F:
    """Adds ``--storage``."""
    return click.option(
        "--storage",
        metavar="URL",
        callback=_warn_of_secret,
        help="Database; else $TUNER_STORAGE, the file $TUNER_STORAGE_FILE, sqlite:///tuner.db.",
    )(command)


def _warn_of_secret(_ctx: click.Context, _param: click.Parameter, url: str | None) -> str | None:
    if url is not None:
        from tuner.store.urls import holds_secret

        if holds_secret(url):
            click.echo(
                "Warning: --storage holds a password, which the list of processes shows to "
                "everyone on this machine. Put the URL into TUNER_STORAGE, or into a file that "
                "TUNER_STORAGE_FILE names.",
                err=True,
            )
    return url


def allow_option(command: F) -> F:
    """Adds ``--allow``, which tells this process and its workers by the environment."""
    return click.option(
        "--allow",
        multiple=True,
        metavar="PACKAGE",
        expose_value=False,
        callback=lambda _ctx, _param, packages: allow(packages),
        help="A package whose code the study may name; else what lies in the working directory. "
        "Repeatable.",
    )(command)


def json_option(command: F) -> F:
    """Adds ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(
        command
    )


def device_option(command: F) -> F:
    """Adds ``--device``."""
    return click.option(
        "--device",
        default="auto",
        show_default=True,
        metavar="auto|cpu|cuda|cuda:0|mps",
        help="Where to train.",
    )(command)


def workers_option(command: F) -> F:
    """Adds ``--workers``."""
    return click.option(
        "--workers",
        default=1,
        show_default=True,
        type=click.IntRange(1, 64),
        help="Processes that train side by side.",
    )(command)


def spec_options(command: F) -> F:
    """Adds a study file and the options that stand in for one."""
    for decorate in reversed(
        (
            click.argument("spec", required=False, metavar="[SPEC.toml]", type=click.Path()),
            click.option("--name", help="The study's name; else the file's, else its stem."),
            click.option("--workload", metavar="MODULE:NAME", help="What to train."),
            click.option("--optimizers", metavar="A,B", help="Which optimizers compete."),
            click.option(
                "--set",
                "settings",
                multiple=True,
                metavar="KEY=VALUE",
                help="Replace a value of the study file, such as budget.trials=20. Repeatable.",
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
    optimizers: str | None,
    settings: tuple[str, ...],
) -> StudySpec:
    """Returns the study that a file and options describe, and allows the code that it names.

    Raises:
        NotFoundError: If the file does not exist.
        SpecError: If something in it breaks a rule.
    """
    if spec is None and workload is None:
        raise SpecError("Give a study file, or --workload: tuner run studies/digits.toml")
    tree: dict[str, Any] = read_spec(Path(spec)) if spec is not None else {}
    if spec is None and workload is not None and name is None:
        name = workload.rpartition(":")[2].lower()
    given = {
        "study.workload": workload,
        "study.name": name,
        "space.optimizers": optimizers and [o.strip() for o in optimizers.split(",")],
    }
    for key, value in given.items():
        if value is not None:
            set_value(tree, key, value)
    parsed = parse_spec(apply_settings(tree, settings), origin=spec or "the options given")
    vouch_for((parsed.study.workload, parsed.search.sampler, parsed.search.pruner))
    return parsed


def open_storage(storage: str | None, *, create: bool = False) -> Database:
    """Opens the database a command names, until the command ends."""
    from tuner.store import default_url, open_database

    database = open_database(storage or default_url(), create=create)
    click.get_current_context().call_on_close(database.close)
    return database


def console(*, stderr: bool = False) -> Console:
    """Returns a console that draws colours only where they can be seen."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def echo_json(value: Any) -> None:
    """Prints a value as JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
