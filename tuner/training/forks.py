"""Processes that a workload forks: none of them goes on as the worker that it is a copy of."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator


@contextlib.contextmanager
def ending_forks() -> Iterator[None]:
    """Ends, where it would leave the block, a process that was forked within.

    It ends as it would have alone: with the status it gave to ``sys.exit``, with its traceback and
    1, or with 0. Nothing is cleaned up, since all there is to clean up is its parent's.
    """
    parent = os.getpid()
    try:
        yield
    except BaseException as error:
        if os.getpid() != parent:
            _leave(error)
        raise
    if os.getpid() != parent:
        _leave(None)


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
