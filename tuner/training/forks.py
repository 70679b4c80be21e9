"""Processes that a workload forks, ended before they act as the worker they are copies of."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator

_guards = 0
_is_fork = False


@contextlib.contextmanager
def ending_forks() -> Iterator[None]:
    """Ends a process that was forked within the block, where it would leave the block.

    It ends as it would have alone: with the status it gave to ``sys.exit``, with its traceback and
    1, or with 0. Nothing is cleaned up, since all there is to clean up is its parent's.
    """
    global _guards  # noqa: PLW0603 - a fork is the process's, not an object's
    _guards += 1
    try:
        yield
    except BaseException as error:
        if _is_fork:
            _leave(error)
        raise
    finally:
        _guards -= 1
    leave_if_forked()


def leave_if_forked() -> None:
    """Ends a process that was forked within :func:`ending_forks` and is back in tuner's code.

    Where tuner calls a workload's method again and again, a copy that came back from one would
    fork once more in the next, and so would the copy's copies.
    """
    if _is_fork:
        _leave(None)


def _note_fork() -> None:
    global _is_fork  # noqa: PLW0603 - see above
    _is_fork = _is_fork or _guards > 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def _leave(error: BaseException | None) -> None:
    status, words = 0, ""
    if isinstance(error, SystemExit):
        if isinstance(error.code, int):
            status = error.code
        elif error.code is not None:
            status, words = 1, f"{error.code}\n"
    elif error is not None:
        status, words = 1, "".join(traceback.format_exception(error))
    with contextlib.suppress(OSError, ValueError):  # nobody may read what it says
        sys.stderr.write(words)
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status & 0xFF)
