"""Studies in the making: specs, records, and a made-up problem to search."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from optuna.trial import FrozenTrial

from tuner.domain.catalog.dimensions import Value
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Outcome, Proposal, TrialRecord
from tuner.search import Proposer


def make_spec(**tables: Any) -> StudySpec:
    tree: dict[str, Any] = {
        "study": {"name": "s", "workload": "models.digits:Digits"},
        "budget": {"trials": 60, "steps": 100, "evaluations": 5},
        "space": {"optimizers": ["sgd", "adam", "muon"], "breadth": 3},
    }
    # What tests count on unless they name others.
    tree["search"] = {"sampler": "tpe", "pruner": "median", "spare": 0} | tables.pop("search", {})
    return StudySpec.model_validate(tree | tables).resolve()


def record_of(
    number: int,
    outcome: Outcome = Outcome.COMPLETE,
    value: float | None = None,
    evaluations: Mapping[int, float] | None = None,
    params: Mapping[str, Value] | None = None,
    preset: str | None = None,
) -> TrialRecord:
    point: dict[str, Value] = {"optimizer": "sgd", "schedule": "constant", "sgd.lr": 0.01}
    point |= params or {}
    return TrialRecord(number, outcome, Proposal(point, preset), value, evaluations or {})


def search(proposer: Proposer, trials: int) -> list[float]:
    """Runs a study of a made-up problem; returns the values in order."""
    values = []
    for number in range(trials):
        trial = proposer.propose()
        values.append(difficulty(trial))
        proposer.history.add([record_of(number, value=values[-1], params=trial.params)])
    return values


def difficulty(trial: FrozenTrial) -> float:
    """Returns the value of a point: best is Adam at a rate of 0.003, by the cosine schedule."""
    name = trial.params["optimizer"]
    off: float = math.log10(trial.params[f"{name}.lr"]) - math.log10(0.003)
    penalty = {"adam": 0.0, "sgd": 1.0, "muon": 2.0}[name]
    return off**2 + penalty + (str(trial.params["schedule"]) != "cosine")
