"""The confirmation of a study: its finalists run again, each on the same fresh seeds.

It is a study of its own, named after the other and linked to it by its UUID, whose trials are the
runs of a race: so it has the same leases, workers and budget as any study.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, model_validator

from tuner.domain.catalog.dimensions import Dimension, Finite, Frozen, Value
from tuner.domain.warm_start import OwnValue, check_point

CONFIRM = "confirm"
"""The preset of a trial that confirms another one."""

CONFIRMS, REPEAT = "confirms", "repeat"
"""The attributes of such a trial: the number of the trial that it confirms, and which of the fresh
seeds it trains with, from 0."""

MOST_FINALISTS = 48
"""Finalists that a confirmation has at most."""

TEST, SPLIT_SEED = "test", "split_seed"
"""The attributes of a trial that its metrics over test data are kept in, and the seed that its data
was split by, if it was by one."""

PER_OPTIMIZER, HEAT_SEEDS = 3, 3
"""Finalists that each optimizer of a comparison has, and the seeds that choose one of them."""

COMPARED_COST = 1.0
"""The ``cost`` of a study that compares optimizers, unless its file says another."""

LEAST_SEEDS = 5
"""Seeds that the winner, the runner-up and the usual choice are given at least."""


MOST_SEEDS = 100
"""Seeds that a finalist may be given at most."""

MOST_RUNS = MOST_FINALISTS * (HEAT_SEEDS + MOST_SEEDS)
"""Runs of a confirmation at most."""


class Confirm(Frozen):
    """The ``[confirm]`` table: how a study's best configurations are run again, on fresh seeds.

    Attributes:
        top: The best configurations that run again, besides the best of other optimizers and the
            usual choice's own defaults; 0 for no confirmation.
        seeds: Fresh seeds that a finalist is given at most.
        cost: Training that the confirmation may take, as a share of what the search has taken; 1
            where a study that compares says nothing. The least is five seeds of three finalists, or
            of one of each optimizer that is compared.
    """

    top: int = Field(default=3, ge=0, le=8)
    seeds: int = Field(default=10, ge=LEAST_SEEDS, le=MOST_SEEDS)
    cost: Finite = Field(default=0.5, gt=0, le=100)


class Finalist(Frozen):
    """A configuration that runs again.

    Attributes:
        trial: The number of the trial that it was found by; of the usual choice's defaults, if no
            complete trial had them, -1.
        params: Its values by the name of the parameter.
        own: The values of the training loop's own hyperparameters, by name.
        protected: Whether it is given five seeds at least.
    """

    trial: int = Field(ge=-1)
    params: dict[str, Value]
    own: dict[str, OwnValue] = Field(default_factory=dict)
    protected: bool = False


class Confirmation(Frozen):
    """The finalists of a study, in the spec of the study that confirms it.

    Attributes:
        study: The UUID of the study whose finalists they are.
        finalists: Them, the best first; none until its search is over.
        seeds: Fresh seeds that each is given at most.
        runs: Runs that may start in all.
        compares: Whether every pair is to be told apart, and not only the best from all others.
    """

    study: str = Field(pattern=r"^[0-9a-f]{32}$")
    finalists: tuple[Finalist, ...] = Field(default=(), max_length=MOST_FINALISTS, strict=False)
    seeds: int = Field(default=LEAST_SEEDS, ge=LEAST_SEEDS, le=MOST_SEEDS)
    runs: int = Field(default=1, ge=1, le=MOST_RUNS)
    compares: bool = False

    @property
    def waits(self) -> bool:
        """Whether the finalists are not known yet, since the search goes on."""
        return not self.finalists

    @model_validator(mode="after")
    def _check_finalists(self) -> Confirmation:
        numbers = [finalist.trial for finalist in self.finalists]
        if len(set(numbers)) < len(numbers):
            raise ValueError("confirmation: a trial is twice among the finalists")
        return self

    def check(self, axes: Mapping[str, Dimension]) -> None:
        """Checks that every finalist lies in a search space.

        Args:
            axes: The axes of the space, by name.

        Raises:
            ValueError: With the first value that does not.
        """
        for finalist in self.finalists:
            check_point(finalist.params, axes, f"finalist {finalist.trial}")
