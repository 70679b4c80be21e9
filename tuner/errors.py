"""The errors that users meet: every message holds the value, the rule and the remedy."""

from __future__ import annotations

import os
import sysconfig
import traceback
from pathlib import Path


class TunerError(Exception):
    """Anything tuner reports to its user on purpose."""


class SpecError(TunerError, ValueError):
    """A study file, an option or a value that breaks a rule; nothing has been created."""


class ExhaustedError(TunerError):
    """A search that has tried everything it can: nothing is left to propose."""


class NotFoundError(TunerError, LookupError):
    """A study, trial or file that does not exist."""


class StorageError(TunerError):
    """A database that cannot be reached, read or written, or is of another version."""


class DamageWarning(UserWarning):
    """A part of a database that cannot be read, and without which the rest is shown."""


class UnavailableError(StorageError):
    """A database that cannot be reached right now; the same may well work in a while."""


class SinkAwayError(UnavailableError):
    """A tool that curves are sent to, and that cannot be reached right now."""


class DeniedError(StorageError):
    """Something that the database does not let its role do."""


class LeaseLostError(StorageError):
    """A trial that now belongs to another worker: its former owner's writes are refused."""


class WorkloadError(TunerError):
    """Workload code that raised, ran out of memory or returned a value that is not allowed."""


class CommandError(WorkloadError):
    """The process of a trial has failed, hung or reported nothing.

    Args:
        message: What has happened, with its last lines.
        place: The line of code that its traceback ends with, as ``file:line``, or nothing.
    """

    def __init__(self, message: str, place: str = "") -> None:
        super().__init__(message)
        self.place = place


class RankError(CommandError):
    """One of the processes that train a trial together has raised, or ended before the trial."""


class RankKilledError(RankError):
    """One of the processes that train a trial together was killed: the trial may go on."""


def tell_error(error: BaseException) -> str:
    """Returns an exception's kind and message, with the remedy where one is known.

    >>> tell_error(ValueError("the scale is off"))
    'ValueError: the scale is off'
    """
    told = f"{type(error).__name__}: {error}"
    if isinstance(error, SystemExit) and _passed_argparse(error):
        return (
            f"{told} (argparse read the arguments of the process, which are tuner's here: "
            "call parse_args([]), which gives the defaults)"
        )
    return told


def find_place(error: BaseException) -> traceback.FrameSummary | None:
    """Returns the line of the user's code that an exception came through last, None without any.

    Where all of that lies in an installed package, as a workload may, it is the innermost line of
    such a package other than torch and numpy; without that, the innermost line of all.
    """
    frames = traceback.extract_tb(error.__traceback__)
    for owner in ("user", "package"):
        found = [frame for frame in frames if _find_owner(frame.filename) == owner]
        if found:
            return found[-1]
    return frames[-1] if frames else None


def _find_owner(filename: str) -> str:
    """Returns whose code a file holds: the user's, a package's, or that of what both build on."""
    names = set(Path(filename).parts)
    if filename.startswith(_TUNER) or (names & _BUILT_ON and names & _PACKAGED):
        return "tuner"
    if names & _PACKAGED:
        return "package"
    return "tuner" if filename.startswith(_LIBRARY) else "user"


_TUNER = ("<", f"{Path(__file__).parent}{os.sep}")
_LIBRARY = f"{sysconfig.get_path('stdlib')}{os.sep}"
_PACKAGED = {"site-packages", "dist-packages"}
_BUILT_ON = {"torch", "numpy"}


def tell_place(error: BaseException) -> str:
    """Returns the line that :func:`find_place` finds, as ``file:line``; empty if there is none.

    Of a command's error it is a line of the command's own code.
    """
    if isinstance(error, CommandError):
        return error.place
    place = find_place(error)
    return "" if place is None else f"{place.filename}:{place.lineno}"


def _passed_argparse(error: BaseException) -> bool:
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__") == "argparse" for frame, _ in frames)
