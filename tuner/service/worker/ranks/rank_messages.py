"""The messages of ranks, as plain values and as what they stand for."""

from __future__ import annotations

from tuner.domain.catalog.dimensions import Choice, Dimension, Fixed, Float, Int, dump_dimension
from tuner.errors import RankError
from tuner.training.loop import Ending, TrialResult
from tuner.training.processes.channel import Message

_RANGES: dict[str, type[Float] | type[Int]] = {"Float": Float, "Int": Int}


def dump_axis(axis: Dimension) -> Message:
    """Returns an axis as a message has it."""
    return {"kind": type(axis).__name__, "axis": dump_dimension(axis)}


def read_axis(told: Message) -> Dimension:
    """Returns the axis of a message; the inverse of :func:`dump_axis`."""
    kind, axis = told["kind"], told["axis"]
    if kind in _RANGES:
        return _RANGES[kind].model_validate(axis)
    return Fixed(value=axis) if kind == "Fixed" else Choice.model_validate(axis)


def to_error(rank: int, message: Message) -> RankError:
    """Returns what a rank has raised, with its place and traceback."""
    error = RankError(f"Rank {rank}: {message.get('error')}", str(message.get("place", "")))
    error.add_note(str(message.get("traceback", "")))
    return error


def to_result(end: Message) -> TrialResult:
    """Returns how a trial has left its loop, as rank 0 tells it."""
    value, step = end["value"], end["diverged_step"]
    return TrialResult(
        Ending(end["ending"]),
        None if value is None else float(value),
        None if step is None else int(step),
        end["fault"] if end["ending"] == Ending.COMPLETE else None,
    )
