"""The messages of ranks, as plain values and as what they stand for."""

from __future__ import annotations

from collections.abc import Mapping

from tuner.domain.catalog.dimensions import Choice, Dimension, Fixed, Float, Int, dump_dimension
from tuner.errors import RankError, RankKilledError
from tuner.training.loop import Ending, TrialResult
from tuner.training.processes.channel import Message

OWN_PARTS = ("rng", "kept")
"""Parts of a checkpoint that each rank has of its own: its randomness, and what a trainer keeps."""

_RANGES: dict[str, type[Float] | type[Int]] = {"Float": Float, "Int": Int}

_CALLS = {
    "report": "run.report",
    "advance": "run.steps",
    "suggest": "run.suggest_…",
    "save": "run.checkpoint()",
    "ended": "the end of the loop",
}
"""What a rank is at that asks the worker, as a user knows it."""


def dump_axis(axis: Dimension) -> Message:
    """Returns an axis as a message has it."""
    return {"kind": type(axis).__name__, "axis": dump_dimension(axis)}


def read_axis(told: Message) -> Dimension:
    """Returns the axis of a message; the inverse of :func:`dump_axis`."""
    kind, axis = told["kind"], told["axis"]
    if kind in _RANGES:
        return _RANGES[kind].model_validate(axis)
    return Fixed(value=axis) if kind == "Fixed" else Choice.model_validate(axis)


def tell_question(question: Message) -> str:
    """Returns what a question is about, in words that are the same for ranks that ask alike."""
    words = [str(question.get("do"))]
    words += [str(question["name"])] if "name" in question else []
    words += [f"after step {question['step']}"] if "step" in question else []
    return " ".join(words)


def tell_hang(asks: Mapping[int, Message | None], stall_s: float) -> RankKilledError:
    """Returns the error of a trial whose ranks have given no sign of life.

    Args:
        asks: What each rank, by its number, waits for an answer to, or None.
        stall_s: Seconds since the last sign.
    """
    silent = [str(number) for number, asked in asks.items() if asked is None]
    who = f"Rank {silent[0]} has" if len(silent) == 1 else f"Ranks {' and '.join(silent)} have"
    words = f"{who} said nothing for {stall_s:g} s (train.stall_s)"
    for number, asked in asks.items():
        if asked is not None:
            call = str(asked.get("do"))
            words += f", while rank {number} is at {_CALLS.get(call, call)}"
    return RankKilledError(
        f"{words}: the ranks count as hung. Each has to call run.report, run.steps, run.suggest_… "
        "and run.checkpoint as the others do; in a long evaluation call run.alive() now and then, "
        "or raise train.stall_s."
    )


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
