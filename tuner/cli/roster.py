"""What to say of a pool's workers: who comes, who goes, and that there is no room."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tuner.service.pools.pool import Exit, Seat, SeatState

_PATIENCE_S = 10.0
"""How long workers may wait for a place before that is said."""

_REMINDER_S = 60.0


class Roster:
    """Knows who was there at the last look, and tells in lines what is new."""

    def __init__(self) -> None:
        self._pids: dict[int, int] = {}
        self._waiting_since: float | None = None
        self._said_at = float("-inf")

    def changes(self, seats: Sequence[Seat], exits: Sequence[Exit]) -> Iterator[str]:
        """Yields a line for each worker that has ended for good or started.

        Args:
            seats: The pool's, as they are now.
            exits: The workers that ended since the last look.
        """
        for ended in exits:
            if ended.gave_up:
                reason, *_ = ended.message.splitlines()
                yield f"worker {ended.index} gave up: {reason}"
            elif ended.died and not ended.restarted:
                yield ended.message
            elif not ended.died and ended.index in self._pids:
                yield f"worker {ended.index} ended"
        for seat in seats:
            index, pid = seat.slot.index, seat.pid
            if pid is not None and self._pids.get(index) != pid:
                again = " again" if index in self._pids else ""
                self._pids[index] = pid
                yield f"worker {index} started{again}: {seat.device} of {seat.host}, process {pid}"

    def lack_of_room(self, seats: Sequence[Seat], now_s: float) -> str | None:
        """Returns a line now and then while workers wait for a place, else None.

        Args:
            seats: The pool's, as they are now.
            now_s: Seconds, by a clock that only goes forward.
        """
        waiting = sum(seat.state is SeatState.WAITING for seat in seats)
        if not waiting:
            self._waiting_since = None
            return None
        if self._waiting_since is None:
            self._waiting_since = now_s
        if now_s - self._waiting_since < _PATIENCE_S or now_s - self._said_at < _REMINDER_S:
            return None
        self._said_at = now_s
        return f"waiting for room: {len(seats) - waiting} of {len(seats)} workers placed"
