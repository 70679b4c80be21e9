"""Proposes and prunes trials: Optuna's samplers and pruners over records of the past."""

from tuner.search.comparer import Comparer
from tuner.search.history import History
from tuner.search.proposer import Proposer
from tuner.search.pruner import Pruner, Verdict, build_pruner, needs_running
from tuner.search.samplers import build_sampler

__all__ = [
    "Comparer",
    "History",
    "Proposer",
    "Pruner",
    "Verdict",
    "build_pruner",
    "build_sampler",
    "needs_running",
]
