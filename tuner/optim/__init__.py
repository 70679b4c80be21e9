"""What builds optimizers and schedules from catalog rows, and updates parameters."""

from tuner.optim.build import build_optimizer, build_schedule
from tuner.optim.joint import JointOptimizer

__all__ = ["JointOptimizer", "build_optimizer", "build_schedule"]
