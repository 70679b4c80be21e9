"""A trial as a lane: its configuration, schedule and logged numbers, outside the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tuner.domain.spec import StudySpec
from tuner.domain.trials import TrialConfig
from tuner.errors import SpecError
from tuner.fused.coefficients import Cut
from tuner.optim.schedules import build_plateau
from tuner.training.checkpoint_state import (
    COMMON_PARTS,
    are_amounts,
    check_parts,
    fitting,
    is_count,
    is_mapping,
)
from tuner.training.loop import TrialResult
from tuner.training.reporting import StaleCheckpointError


@dataclass(frozen=True)
class LaneStart:
    """A trial to train as a lane.

    Attributes:
        config: Its configuration.
        state: Its state by ``Cohort.state_dict()``, to go on from, or None.

    Raises:
        StaleCheckpointError: If a part of the state is missing, of another type, or out of range.
    """

    config: TrialConfig
    state: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.state is not None:
            check_lane(self.state)


class Lane:
    """A trial of a cohort.

    Args:
        spec: The study.
        start: The trial.

    Attributes:
        config: Its configuration.
        cuts: The cuts of the learning rate that its schedule has made so far.
        logged: Numbers that were logged of it: step, name and value.
        outcome: How it ended, or None while it trains.
        costs: Its share, over all attempts, of the cohort's seconds in training (``train_s``) and
            in evaluation (``eval_s``), and of its places: the steps that all trials that began
            would have taken, had none ended early.
        average_line: As :attr:`tuner.training.run.Run.average_line`.
        test: Its metrics over test data, once they are taken.
    """

    def __init__(self, spec: StudySpec, start: LaneStart) -> None:
        self.config = start.config
        self.cuts: list[Cut] = []
        self.logged: list[tuple[int, str, float]] = []
        self.outcome: TrialResult | None = None
        self.costs = {"train_s": 0.0, "eval_s": 0.0, "places": 0.0}
        self.average_line: list[tuple[float, float]] = []
        self.test: dict[str, float] = {}
        self._plateau = build_plateau(
            start.config.schedule,
            start.config.schedule_values,
            evaluations=spec.budget.evaluations,
            direction=spec.study.direction,
        )
        if start.state is not None:
            self._restore(start.state)

    def observe(self, value: float, taken: int) -> bool:
        """Takes an evaluation's metric; returns whether the learning rate is another from now on.

        Args:
            value: The metric.
            taken: Steps taken.
        """
        if self._plateau is None:
            return False
        before = self._plateau.scale
        self._plateau.observe(value)
        if self._plateau.scale == before:
            return False
        self.cuts.append((taken, self._plateau.scale))
        return True

    def state_dict(self) -> dict[str, Any]:
        """Returns the state to continue from, as plain values."""
        return {
            "config": _describe(self.config),
            "cuts": [list(cut) for cut in self.cuts],
            "plateau": self._plateau and self._plateau.state_dict(),
            "costs": dict(self.costs),
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        if state.get("kind") != "lane" or state["config"] != _describe(self.config):
            raise StaleCheckpointError("The checkpoint is of another trial, or not of a lane.")
        self.cuts = [(step, scale) for step, scale in state["cuts"]]
        self.costs = dict(state["costs"])
        if self._plateau is not None:
            with fitting("the schedule"):
                self._plateau.load_state_dict(state["plateau"])


def check_together(starts: Sequence[LaneStart]) -> None:
    """Checks that trials can train on the same batches, step by step.

    Raises:
        SpecError: If they cannot.
    """
    if not starts:
        raise SpecError("A cohort needs at least one trial.")
    sizes = {start.config.batch_size for start in starts}
    taken = {start.state and start.state["steps"]["done"] for start in starts}
    if len({start.config.fuse_key for start in starts}) > 1 or len(taken) > 1:
        raise SpecError(
            f"The trials of a cohort have batch sizes {', '.join(sorted(map(str, sizes)))} and "
            f"{len(taken)} numbers of steps taken: put those together that have both in common, "
            "and their groups of parameters."
        )


def check_lane(state: Mapping[str, Any]) -> None:
    """Checks that a state has the parts of a lane's checkpoint.

    Args:
        state: One lane's state from ``Cohort.state_dict()``; a file may hold anything.

    Raises:
        StaleCheckpointError: If a part is missing, of another type, or out of range.
    """
    check_parts(state, _PARTS)


def _are_costs(part: Any) -> bool:
    return are_amounts(part, {"train_s", "eval_s", "places"})


def _are_cuts(part: Any) -> bool:
    return isinstance(part, list) and all(
        isinstance(cut, list) and len(cut) == 2 and is_count(cut[0]) and type(cut[1]) is float
        for cut in part
    )


def _are_tensors(part: Any) -> bool:
    return isinstance(part, dict) and all(isinstance(value, Tensor) for value in part.values())


def _is_line(part: Any) -> bool:
    return isinstance(part, Tensor) and part.ndim == 1


_PARTS = COMMON_PARTS | {
    "config": is_mapping,
    "costs": _are_costs,
    "cuts": _are_cuts,
    "tensors": _are_tensors,
    "losses": _is_line,
}


def _describe(config: TrialConfig) -> dict[str, Any]:
    names = {"optimizer": config.optimizer, "schedule": config.schedule}
    return names | config.to_json()
