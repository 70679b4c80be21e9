"""What to try next, and what to stop: Optuna's samplers and pruners over records of the past."""

from tuner.search.history import History
from tuner.search.proposer import Proposer, template_of
from tuner.search.pruner import Pruner

__all__ = ["History", "Proposer", "Pruner", "template_of"]
