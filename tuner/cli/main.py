"""``tuner``: the group of all commands, and the one place where errors become exit codes."""

from __future__ import annotations

import gc
import os
import sys
import warnings
from typing import Any

import click

from tuner.cli.catalog import optimizers, schedules
from tuner.cli.completion import completion
from tuner.cli.dashboard import dashboard
from tuner.cli.db import db
from tuner.cli.doctor import doctor
from tuner.cli.init import init
from tuner.cli.lr_range import lr_range
from tuner.cli.options import console
from tuner.cli.run import run
from tuner.cli.streams import clean_streams, hide_secrets
from tuner.cli.study import study
from tuner.cli.suite import suite
from tuner.cli.trial import trial
from tuner.cli.words import Group
from tuner.cli.worker import worker
from tuner.cli.workers import workers
from tuner.cli.workloads import workloads
from tuner.domain.places import starting_here
from tuner.domain.printable import cut_words
from tuner.errors import DamageWarning, NotFoundError, SpecError, TunerError, UnavailableError

_FORMAT = warnings.formatwarning

USE, FAULT, UNAVAILABLE = 2, 1, 69
"""Exit codes; 69 is EX_UNAVAILABLE of sysexits.h: the same may work in a while."""


class Commands(Group):
    """Turns an error that a command raises into a message and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command; an error ends the process with exit code 1, 2 or 69."""
        try:
            with starting_here():
                return super().invoke(ctx)
        except click.ClickException as error:
            error.message = cut_words(error.message)  # type: ignore[misc]
            raise
        except (click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except TunerError as error:
            if ctx.params.get("debug"):
                raise
            _say(str(error))
            ctx.exit(_code_of(error))
        except Exception as error:
            if ctx.params.get("debug"):
                raise
            _say(
                f"{type(error).__name__}: {error}\n"
                "This is a fault of tuner; 'tuner --debug …' shows where."
            )
            ctx.exit(FAULT)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with: tuner init mine && cd mine && tuner run studies/digits.toml",
)
@click.version_option(package_name="tuner")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(debug: bool) -> None:
    """Find the optimizer, its settings and its schedule that train a model best."""


for command in (
    *(init, run, study, suite, trial, worker, workers, workloads, lr_range),
    *(optimizers, schedules, dashboard, db, doctor, completion),
):
    cli.add_command(command)


def main() -> None:
    """Runs the command line."""
    clean_streams()
    warnings.formatwarning = _format_warning
    try:
        cli(prog_name="tuner")
    except BrokenPipeError:
        # Whoever read our output has gone, as with `tuner optimizers | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAULT)
    finally:
        # Looking through all that torch has made, for nothing, would take Python a second.
        gc.freeze()


def _code_of(error: TunerError) -> int:
    if isinstance(error, UnavailableError):
        return UNAVAILABLE
    return USE if isinstance(error, SpecError | NotFoundError) else FAULT


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: Any = None
) -> str:
    """Returns the text of a warning, without the line of tuner's code that it comes from."""
    if issubclass(category, DamageWarning):
        return f"Warning: {message}\n"
    return _FORMAT(message, category, filename, lineno, line)


def _say(message: str) -> None:
    console(stderr=True).print("Error: ", style="bold red", end="")
    click.echo(cut_words(hide_secrets(message)), err=True)
