"""Optimizers, schedules and averages, built from the rows of the catalog."""

from tuner.optim.build import build_optimizer
from tuner.optim.composite import CompositeOptimizer
from tuner.optim.lookahead import Lookahead
from tuner.optim.schedules import Schedule, build_schedule
from tuner.optim.yellowfin import YellowFin

__all__ = [
    "CompositeOptimizer",
    "Lookahead",
    "Schedule",
    "YellowFin",
    "build_optimizer",
    "build_schedule",
]
