"""A trial as a lane: what is kept of it beside its place on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuner.domain.spec import StudySpec
from tuner.domain.trials import TrialConfig
from tuner.errors import SpecError
from tuner.fused.coefficients import Cut
from tuner.optim.schedules import build_plateau
from tuner.training.checkpoint_state import check_lane, fitting
from tuner.training.loop import TrialResult
from tuner.training.reporting import StaleCheckpointError


@dataclass(frozen=True)
class LaneStart:
    """A trial to train as a lane.

    Attributes:
        config: What it trains with.
        state: What ``Cohort.state_dict()`` gave of it, to go on from, or None.

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
        config: What it trains with.
        cuts: What its schedule has made of the metric so far.
        logged: Numbers kept beside it: step, name and value.
        outcome: How it ended, or None while it trains.
        costs: Its share, over all attempts, of the cohort's seconds in training (``train_s``) and
            in evaluation (``eval_s``), and of its places: the steps that all trials that began
            would have taken, had none ended early.
        average_line: As :attr:`tuner.training.evaluations.Evaluations.average_line`.
    """

    def __init__(self, spec: StudySpec, start: LaneStart) -> None:
        self.config = start.config
        self.cuts: list[Cut] = []
        self.logged: list[tuple[int, str, float]] = []
        self.outcome: TrialResult | None = None
        self.costs = {"train_s": 0.0, "eval_s": 0.0, "places": 0.0}
        self.average_line: list[tuple[float, float]] = []
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
        """Returns what continuing needs, as plain values."""
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
    """Sees that trials can train on the same batches, step by step.

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


def _describe(config: TrialConfig) -> dict[str, Any]:
    names = {"optimizer": config.optimizer, "schedule": config.schedule}
    return names | config.to_json()
