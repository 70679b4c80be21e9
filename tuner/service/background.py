"""A run of a study in a thread of its own, which a program waits for or interrupts."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable

from tuner.service.interruption import GRACE_S, Interruption
from tuner.service.study_run import RunEnd


class BackgroundRun:
    """Runs a study in a thread; if the program ends first, trials in training are saved.

    Args:
        train: Trains the study until the interruption asks for a stop; returns how that ended.
        tell: Takes how it ended, for people to read.
        interruption: Asks for a stop.
    """

    def __init__(
        self,
        train: Callable[[], RunEnd | None],
        tell: Callable[[RunEnd | None], None],
        interruption: Interruption,
    ) -> None:
        self._train, self._tell, self._interruption = train, tell, interruption
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._go, daemon=True)
        atexit.register(self._leave)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended yet."""
        return self._thread.is_alive()

    def interrupt(self) -> None:
        """Asks for a stop; does not wait."""
        self._interruption.request("the program")

    def wait(self, timeout: float | None) -> bool:
        """Waits for the end; tells whether it has come.

        Args:
            timeout: Seconds to wait at most, or None.

        Raises:
            BaseException: The error that ended it, once.
        """
        self._thread.join(timeout)
        if self._thread.is_alive():
            return False
        error, self._error = self._error, None
        if error is not None:
            raise error
        return True

    def _go(self) -> None:
        try:
            self._tell(self._train())
        except BaseException as error:  # noqa: BLE001 (raised where somebody waits)
            self._error = error
        finally:
            atexit.unregister(self._leave)

    def _leave(self) -> None:
        self.interrupt()
        self._thread.join(GRACE_S)
