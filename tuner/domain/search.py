"""The ``[search]`` table: how a study searches, or compares."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from tuner.domain.budget import Budget
from tuner.domain.catalog.dimensions import Frozen
from tuner.domain.names import IMPORT_STRING, suggest
from tuner.domain.samplers import PRUNERS, SAMPLERS
from tuner.domain.warm_start import AUTO, OFF

COMPARE = "compare"
"""The mode of a study that compares optimizers, rather than searching for the best of all."""

_ALIKE: dict[str, Any] = {"pruner": "none", "portfolio": False, "warm_start": OFF}
"""The settings of a comparison: each of the others would give some optimizers more than others."""


class Search(Frozen):
    """The ``[search]`` table: the sampler that proposes trials, and the pruner that stops them.

    Attributes:
        mode: ``search`` looks for the best configuration of all; ``compare`` gives every optimizer
            the same training, its own defaults first, so that they can be compared.
        sampler: ``mixture`` draws evenly, from priors, and near the best trials; ``tpe``, ``gp``
            and ``cmaes`` learn from finished trials, ``random`` and ``qmc`` do not; or the import
            string of a callable that takes ``seed`` and returns an Optuna sampler.
        pruner: ``median`` stops a trial worse than the median at the same point, ``asha`` and
            ``hyperband`` all but the best third at a few points, ``halving`` pauses those and
            lets each go on once it is among the best third, ``none`` stops no trial; or the
            import string of a callable that returns an Optuna pruner.
        portfolio: Whether the study starts with configurations that did well on other workloads.
        spare: Complete trials that each optimizer gets, to be ranked by: ``halving`` completes the
            best that are paused once nothing else is left to train, and ``median`` stops no trial
            of an optimizer before. More ranks optimizers better, and costs training.
        warm_start: An earlier study of the same database whose best configurations this one
            starts with: its name, ``auto`` for whichever fits, or ``off``. It is looked at once,
            as this study is created.
        seed: The seed from which every random draw of the study is derived.
    """

    mode: Literal["search", "compare"] = "search"
    sampler: str = "mixture"
    pruner: str = "halving"
    portfolio: bool = True
    spare: int = Field(default=1, ge=0, le=1000)
    warm_start: str = Field(default=OFF, min_length=1, max_length=200)
    seed: int = Field(default=0, ge=0, lt=2**63)

    @model_validator(mode="before")
    @classmethod
    def _compare_in_full(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and raw.get("mode") == COMPARE:
            return _ALIKE | raw
        return raw

    @model_validator(mode="after")
    def _check_mode(self) -> Search:
        for name, value in _ALIKE.items():
            if self.mode == COMPARE and getattr(self, name) != value:
                raise ValueError(
                    f"{name} = {json.dumps(getattr(self, name))} would favour some optimizers, and "
                    f'mode = "compare" trains all alike: leave {name} out'
                )
        return self

    @field_validator("sampler", "pruner")
    @classmethod
    def _check_name(cls, name: str, field: ValidationInfo) -> str:
        known = SAMPLERS if field.field_name == "sampler" else PRUNERS
        if name not in known and not re.fullmatch(IMPORT_STRING, name):
            raise ValueError(
                f"neither an import string such as mysearch:build nor one of "
                f"{', '.join(known)}: {suggest(name, known)}"
            )
        return name


def check_comparison(budget: Budget, optimizers: Sequence[str]) -> None:
    """Checks that a study that compares optimizers can train all of them alike.

    Args:
        budget: Its budget.
        optimizers: The optimizers that it compares.

    Raises:
        ValueError: If there is one alone, the training cannot be shared out equally, or the study
            may end before it is.
    """
    count = len(optimizers)
    if count < 2:
        raise ValueError(
            f'mode = "compare" has only {optimizers[0]} to compare: name others beside it in '
            "space.optimizers"
        )
    if budget.stop == AUTO:
        raise ValueError(
            'stop = "auto" would end a comparison before all optimizers have had the same '
            "training: leave stop out"
        )
    name = "trials" if budget.full_trials is None else "full_trials"
    size = budget.trials if budget.full_trials is None else budget.full_trials
    below = share_out(size, count)
    if size < LEAST_COMPARED * count or size != below:
        fitting = [n for n in (below, below + count) if n >= LEAST_COMPARED * count]
        choice = " or ".join(map(str, fitting or [LEAST_COMPARED * count]))
        raise ValueError(
            f"budget.{name} = {size:g} cannot be shared out equally among {count} optimizers, "
            f"{LEAST_COMPARED} trials each at least: make it {choice}"
        )


def share_out(size: float, count: int) -> int:
    """Returns the most trials that can be shared out equally.

    >>> share_out(33, 4)
    32

    Args:
        size: The trials, or full trials, that there are.
        count: The optimizers that share them.
    """
    return int(size // count) * count


LEAST_COMPARED = 4
"""Trials, or full trials, that each optimizer of a comparison has at least."""
