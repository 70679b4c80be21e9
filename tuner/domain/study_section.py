"""The ``[study]`` table of a study file: what is tuned, and by which metric."""

from __future__ import annotations

import re
import shlex
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from tuner.domain.catalog.dimensions import Finite, Frozen
from tuner.domain.command import check_command, write_line
from tuner.domain.command_rules import tell_command
from tuner.domain.names import IMPORT_STRING

Direction = Literal["minimize", "maximize"]

# No path separators, control characters, or a start that reads as an option.
NAME = r"^[^\s/\\\x00-\x1f\x7f-\x9f-][^/\\\x00-\x1f\x7f-\x9f]*$"
"""The pattern of a study's name."""


METRIC = r"^[A-Za-z_][\w./-]*$"
"""The pattern of a metric's name."""


class StudySection(Frozen):
    """The ``[study]`` table: the workload that is tuned, and the metric that ranks its trials.

    Attributes:
        name: The study's name, unique in its database.
        command: The words of a command that trains a trial, with settings in braces; or None.
        workload: Import string ``module:attribute`` of the workload; the command as one line where
            that trains.
        metric: The metric, among those the workload returns, that ranks trials.
        direction: Whether a smaller or a larger metric is better.
        objective: What trials are ranked by: the ``metric``, or ``time_to_target``, the time until
            it first reaches the target. A trial is complete there.
        target: The metric to be reached, with ``time_to_target``.
        unit: The unit of that time: optimizer ``steps``, or ``seconds`` of training.
        rank_by: Which evaluation of a trial counts: its ``last``, or its ``best``.
        show: Other metrics that lists of trials show, each in a column.
    """

    name: str = Field(min_length=1, max_length=200, pattern=NAME)
    command: tuple[str, ...] | None = Field(default=None, strict=False)
    workload: str
    metric: str = Field(default="val_loss", pattern=METRIC)
    direction: Direction = "minimize"
    objective: Literal["metric", "time_to_target"] = "metric"
    target: Finite | None = None
    unit: Literal["steps", "seconds"] = "steps"
    rank_by: Literal["last", "best"] = "last"
    show: tuple[Annotated[str, Field(pattern=METRIC)], ...] = Field(
        default=(), max_length=20, strict=False
    )

    @model_validator(mode="before")
    @classmethod
    def _tell_command(cls, raw: Any) -> Any:
        return tell_command(raw)

    @field_validator("command")
    @classmethod
    def _check_command(cls, words: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if words is not None:
            check_command(words)
        return words

    @field_validator("workload")
    @classmethod
    def _check_workload(cls, workload: str, info: ValidationInfo) -> str:
        command = info.data.get("command")
        if command is None:
            if "command" in info.data and not re.fullmatch(IMPORT_STRING, workload):
                raise ValueError("must be an import string such as models.digits:Digits")
        elif workload not in (write_line(command), shlex.join(command)):  # as older versions do
            raise ValueError("give workload or command, not both")
        return workload

    @model_validator(mode="after")
    def _check_target(self) -> StudySection:
        if self.objective == "metric":
            for name in ("target", "unit"):
                if name in self.model_fields_set and getattr(self, name) not in (None, "steps"):
                    raise ValueError(
                        f"{name} is set, but trials are ranked by the metric: add objective = "
                        f'"time_to_target", or leave {name} out'
                    )
        elif self.target is None:
            raise ValueError(
                'objective = "time_to_target" needs a target: add target = 0.1, the '
                f"{self.metric} that is to be reached"
            )
        elif self.rank_by == "best":
            raise ValueError(
                'rank_by = "best" chooses among evaluations of the metric, and objective = '
                '"time_to_target" ranks trials by time: leave one of the two out'
            )
        return self

    @property
    def ranking(self) -> Direction:
        """Whether a smaller or a larger value of a trial is better: of a time, the smaller."""
        return self.direction if self.target is None else "minimize"
