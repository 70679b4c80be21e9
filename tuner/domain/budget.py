"""The ``[budget]`` table: the trials of a study, their length and their evaluations."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from tuner.domain.catalog.dimensions import Finite, Frozen

_UNIT_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(raw: Any) -> Any:
    """Reads a duration.

    Args:
        raw: Seconds as a number, or text such as ``"90s"``, ``"30m"``, ``"1h30m"``.

    Returns:
        Seconds, or ``raw`` itself where it is neither.

    >>> parse_duration("1h30m")
    5400.0
    """
    if not isinstance(raw, str):
        return raw
    if not re.fullmatch(r"(\d+(\.\d+)?[smhd])+", raw):
        raise ValueError(f'{raw!r} is not a duration: write "90s", "30m", "2h" or "1h30m"')
    return sum(
        float(number) * _UNIT_S[unit]
        for number, _, unit in re.findall(r"(\d+(\.\d+)?)([smhd])", raw)
    )


STARTS = 5
"""Trials for each full trial where a study bounds its training alone: as many as could pause after
a fifth, where a trial pauses first."""


def _count_trials(given: dict[str, Any]) -> int:
    """Returns the number of trials that may start where the study file does not say."""
    full_trials = given.get("full_trials")
    return 60 if full_trials is None else max(1, min(10**6, math.ceil(STARTS * full_trials)))


class Budget(Frozen):
    """The ``[budget]`` table: the amount of training that a study may do.

    Attributes:
        full_trials: Training of all trials together, in full trials, at least 1: a trial counts by
            its steps as a part of those of a full one. Left out, it is not bounded.
        trials: Trials that may start; pruned and failed ones count. Left out, 60, or five times
            ``full_trials``.
        steps: Optimizer steps of a full trial; exactly one of steps, epochs and examples.
        epochs: Passes over the training data of a full trial.
        examples: Training examples a full trial sees.
        epoch_steps: Steps of an epoch, for loops whose loaders have no length, as over an iterable
            dataset.
        evaluations: Points, spread evenly over a full trial, where it is evaluated.
        wall_time: Seconds of work, over all sessions, after which nothing new starts.
        stop: Whether the study also ends once little is left to gain (``auto``), or ``never`` so.
    """

    full_trials: Finite | None = Field(default=None, ge=1, le=10**6)
    trials: int = Field(default_factory=_count_trials, ge=1, le=10**6)
    steps: int | None = Field(default=None, ge=1, le=10**10)
    epochs: Finite | None = Field(default=None, gt=0, le=10**6)
    examples: int | None = Field(default=None, ge=1, le=10**13)
    epoch_steps: int | None = Field(default=None, ge=1, le=10**10)
    evaluations: int = Field(default=10, ge=1, le=200)
    wall_time: Annotated[Finite | None, BeforeValidator(parse_duration)] = Field(default=None, gt=0)
    stop: Literal["never", "auto"] = "never"

    @model_validator(mode="before")
    @classmethod
    def _default_length(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and not {"steps", "epochs", "examples"} & raw.keys():
            return raw | {"epochs": 10}
        return raw

    @model_validator(mode="after")
    def _check_length(self) -> Budget:
        given = [n for n in ("steps", "epochs", "examples") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of steps, epochs and examples, not {given}")
        return self

    def full_steps(self, epoch_steps: int, batch_size: int) -> int:
        """Returns the optimizer steps of a full trial, at least 1.

        Args:
            epoch_steps: Steps of a pass over the training data.
            batch_size: Examples a step.
        """
        if self.steps is not None:
            return self.steps
        if self.examples is not None:
            return max(1, round(self.examples / batch_size))
        return max(1, round((self.epochs or 0) * epoch_steps))


def evaluation_step(index: int, total_steps: int, evaluations: int) -> int:
    """Returns the step after which an evaluation, counted from 1, is due.

    In a trial of fewer steps than evaluations, several are due at once: the last of them counts.
    """
    return math.ceil(index * total_steps / evaluations)
