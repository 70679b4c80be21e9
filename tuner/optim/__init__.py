"""What builds optimizers and schedules from catalog rows, and updates parameters."""

from tuner.optim.build import build_optimizer
from tuner.optim.joint import JointOptimizer
from tuner.optim.schedules import Schedule, build_schedule

__all__ = ["JointOptimizer", "Schedule", "build_optimizer", "build_schedule"]
