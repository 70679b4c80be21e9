"""What a checkpoint gives back, each thing as the training loop builds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.training.reporting import StaleCheckpointError


class Snapshot:
    """The state of an earlier attempt, or nothing.

    Args:
        state: What ``Run.state_dict()`` gave, or None for a trial from its start.
    """

    def __init__(self, state: Mapping[str, Any] | None) -> None:
        self._state = state or {}

    def __bool__(self) -> bool:
        return bool(self._state)

    def __getitem__(self, key: str) -> Any:
        return self._state[key]

    def restore(self, kind: str, index: int, target: Any) -> None:
        """Puts the next model, optimizer or schedule where it was.

        Raises:
            StaleCheckpointError: If the state is of something else.
        """
        if not self._state:
            return
        if index >= len(self._state[kind]):
            raise StaleCheckpointError(f"The checkpoint has fewer {kind} than the loop builds.")
        _load(target, self._state[kind][index])

    def restore_object(self, name: str, target: Any) -> None:
        """Puts an object that the loop has named where it was.

        Raises:
            StaleCheckpointError: If the state is of something else.
        """
        if name in self._state.get("objects", {}):
            _load(target, self._state["objects"][name])

    def check(self, seed: int, length: int | None) -> None:
        """Makes sure that the state is of a trial of this seed and, where known, length.

        Raises:
            StaleCheckpointError: If it is not.
        """
        if self._state and (
            self._state["seed"] != seed or length not in (None, self._state["steps"]["length"])
        ):
            raise StaleCheckpointError("The checkpoint is of a trial of another seed or length.")


def _load(target: Any, state: Any) -> None:
    try:
        target.load_state_dict(state)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise StaleCheckpointError(
            f"The checkpoint does not fit {type(target).__name__}: {error}"
        ) from error
