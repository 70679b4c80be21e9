"""The starts of a group's training: of a trial alone, or of trials as one cohort."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from tuner.fused.cohort import Cohort
from tuner.fused.lane import LaneStart
from tuner.fused.model import FusedModel
from tuner.fused.twin import Twin
from tuner.service.folders import trial_folder
from tuner.service.worker.held_trial import HeldTrial
from tuner.service.worker.lanes import Lanes, OnlyLane
from tuner.training.loop import TrainingLoop
from tuner.training.place import Place
from tuner.training.reporting import Reporter
from tuner.training.run import Run

Start = Callable[[Sequence[HeldTrial], Reporter], Lanes]
"""Puts trials where their checkpoints left them; the reporter hears from them as they train."""


def start_alone(loop: TrainingLoop, device: torch.device, folder: Path) -> Start:
    """Returns the start of a trial that a training loop trains alone.

    Args:
        loop: The training loop.
        device: The device to train on.
        folder: The study's folder.
    """

    def start(trials: Sequence[HeldTrial], reporter: Reporter) -> OnlyLane:
        [trial] = trials
        trial.load()
        run = Run(
            trial.spec,
            trial.config,
            device=device,
            reporter=reporter,
            state=trial.state,
            place=place_of(trial, folder),
        )
        return OnlyLane(trial.spec, run, loop)

    return start


def place_of(trial: HeldTrial, folder: Path) -> Place:
    """Returns the place of a trial, with a folder of its own in that of its study."""
    return Place(trial.spec.study.name, trial.number, trial_folder(folder, trial.number))


def start_cohort(model: FusedModel, twin: Twin | None, rest: Callable[[], object]) -> Start:
    """Returns the start of trials that train as one.

    Args:
        model: The study's model, fused.
        twin: Compares one of the trials with the same trial alone, or None.
        rest: Called before steps are compiled, which takes longer than a step may.
    """

    def start(trials: Sequence[HeldTrial], reporter: Reporter) -> Cohort:
        model.compiler.before = rest
        starts = [LaneStart(trial.config, trial.state) for trial in trials]
        seeded = model.with_seed(trials[0].spec.search.seed)
        return Cohort(seeded, starts, reporter, twin=twin)

    return start
