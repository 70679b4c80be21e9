"""SMAC3's multi-fidelity search: Hyperband that draws by a random forest."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import joblib
from ConfigSpace import (
    CategoricalHyperparameter,
    ConfigurationSpace,
    EqualsCondition,
    UniformFloatHyperparameter,
)
from smac import MultiFidelityFacade, Scenario
from smac.intensifier.hyperband_utils import get_n_trials_for_hyperband_multifidelity
from smac.runhistory import TrialInfo, TrialValue

from benchmarks.rivals.asking import Searched, condition_of, searched_axes
from benchmarks.search.spaces import EVALUATIONS
from tuner.domain.catalog.dimensions import Choice, Value
from tuner.domain.spec import StudySpec
from tuner.search.knowledge import Knowledge

_PLANNED = 250
"""Evaluations that a search is planned for, which decide on the size of its initial design: about
what plain Optuna takes."""


class Smac:
    """Holds a search of SMAC3, which is given the conditions of the space.

    Args:
        spec: The space.
        seed: Its seed.
    """

    def __init__(self, spec: StudySpec, seed: int) -> None:
        scenario = Scenario(
            to_space(spec, seed),
            output_directory=Path(tempfile.gettempdir()) / "tuner-smac",
            deterministic=True,
            n_trials=get_n_trials_for_hyperband_multifidelity(
                _PLANNED, 1, EVALUATIONS, print_summary=False
            ),
            min_budget=1,
            max_budget=EVALUATIONS,
            seed=seed,
        )
        self._search = MultiFidelityFacade(
            scenario, lambda config, seed, budget: 0.0, logging_level=False, overwrite=True
        )
        self._asked: TrialInfo | None = None

    def ask(self) -> tuple[Mapping[str, Value], int]:
        """Returns what it wants next: a configuration up to a rung."""
        with joblib.parallel_config(backend="sequential"):  # searches fill the cores as it is
            self._asked = self._search.ask()
        values = {
            name: getattr(v, "item", lambda v=v: v)() for name, v in self._asked.config.items()
        }
        return values, round(self._asked.budget)

    def tell(self, loss: float) -> None:
        """Takes the loss there."""
        self._search.tell(self._asked, TrialValue(cost=loss), save=False)


def start(spec: StudySpec, seed: int, knowledge: Knowledge) -> Smac:
    """Returns SMAC3 as its facade for several fidelities sets it up."""
    return Smac(spec, seed)


def to_space(spec: StudySpec, seed: int) -> ConfigurationSpace:
    """Returns a space with its conditions.

    Args:
        spec: The space.
        seed: The seed of its draws.
    """
    axes = searched_axes(spec)
    space = ConfigurationSpace(seed=seed)
    made = {name: _to_hyperparameter(name, axis) for name, axis in axes.items()}
    space.add(*made.values())
    for name in axes:
        if condition := condition_of(name, axes):
            space.add(EqualsCondition(made[name], made[condition[0]], condition[1]))
    return space


def _to_hyperparameter(
    name: str, axis: Searched
) -> CategoricalHyperparameter | UniformFloatHyperparameter:
    if isinstance(axis, Choice):
        return CategoricalHyperparameter(name, [*axis.choices])
    return UniformFloatHyperparameter(name, axis.low, axis.high, log=axis.log)
