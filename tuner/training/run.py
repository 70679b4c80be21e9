"""The run that a training loop gets: it gives optimizer, schedule and steps, and takes reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, overload

import torch
from torch import nn

from tuner.domain.budget import Budget
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.spec import StudySpec
from tuner.domain.trials import TrialConfig
from tuner.errors import SpecError, WorkloadError
from tuner.optim import Schedule, build_optimizer, build_schedule
from tuner.optim.groups import trainable
from tuner.training.checkpoint_state import Snapshot, describe
from tuner.training.evaluations import Evaluations
from tuner.training.loader import length_of, resume_batches
from tuner.training.logged import Logged
from tuner.training.networks import Networks
from tuner.training.pace import Pace
from tuner.training.progress import Progress
from tuner.training.reporting import Interrupted, Reporter
from tuner.training.seeds import derive_seed, random_state, seed_all
from tuner.training.steps import Steps
from tuner.training.suggestions import Suggestions
from tuner.training.timing import Timing
from tuner.training.weight_averaging import Averaging


class Run(Suggestions, Progress, Evaluations):
    """One trial, as a training loop sees it.

    A loop takes its optimizer, schedule and steps from a run and reports to it. A step is one
    iteration of the loop over :meth:`steps`. Where an optimizer calls a closure several times an
    iteration, as L-BFGS does, each call costs a step, so that every trial's budget buys equally
    many gradients.

    Args:
        spec: The study, resolved.
        config: What this trial trains with.
        device: Where it trains.
        reporter: The worker, or a test, that takes the reports.
        state: The :meth:`state_dict` of an earlier attempt, to continue from.
        at_most: Steps to cut a full trial to, for a rehearsal.

    Attributes:
        seed: The study's seed; every source of randomness has been seeded from it.
        device: Where to train.
        budget: What the study may spend: the ``[budget]`` table.
        config: What this trial trains with.
        networks: The models it optimizes, and the names that the loop gives them.
    """

    def __init__(
        self,
        spec: StudySpec,
        config: TrialConfig,
        *,
        device: torch.device,
        reporter: Reporter,
        state: Mapping[str, Any] | None = None,
        at_most: int | None = None,
    ) -> None:
        row = OPTIMIZERS[config.optimizer]
        steps = Steps(spec.budget, config.batch_size, at_most, capped=row.closure)
        Suggestions.__init__(self, spec, config.own, reporter)
        Progress.__init__(self, steps, spec.train)
        averaging = Averaging(config, steps, spec.search.seed, device)
        Evaluations.__init__(self, spec.study.metric, steps, averaging, reporter)
        self._spec = spec
        self._snapshot = Snapshot(state)
        self.config = config
        self.device = device
        self.seed = spec.search.seed
        self.budget: Budget = spec.budget
        self.networks = Networks(spec.network)
        self._optimizers: list[torch.optim.Optimizer] = []
        self._schedules: list[Schedule] = []
        self._paces: list[Pace] = []
        self._objects: dict[str, Any] = {}
        self._logged = Logged()
        self._stepped_before = False
        self._save_asked = False
        seed_all(derive_seed(self.seed, "init"))
        if self._snapshot:
            self._restore_counts(self._snapshot)

    # What the loop builds.

    def optimizer(self, model: nn.Module, name: str | None = None) -> torch.optim.Optimizer:
        """Returns this trial's optimizer over a model, parameter groups included.

        Frozen parameters train once the loop sets their ``requires_grad``. When the trial
        continues from a checkpoint, the states of model and optimizer are restored from it.

        Args:
            model: The model, on :attr:`device`.
            name: A name for it, where a loop has several models: patterns of groups then begin
                with the name, and ``[network.NAME.OPTIMIZER]`` tables may give it its own ranges.

        Raises:
            WorkloadError: If this optimizer cannot train this model, or another model has the
                name.
        """
        optimizer = build_optimizer(
            self.config.optimizer,
            self.config.values_of(name),
            model,
            self.config.groups,
            spare_vectors=self.train.no_decay_on_biases_and_norms,
            total_steps=self.length,
            network=name,
        )
        self.networks.enter(model, name)
        index = len(self._optimizers)
        self._snapshot.restore("models", index, model)
        self._snapshot.restore("optimizers", index, optimizer)
        self._steps.watch(optimizer, self._go_on)
        average = self._averaging.follow(model, optimizer)
        if average is not None:
            self._snapshot.restore("averages", len(self._averaging.averages) - 1, average)
        self._optimizers.append(optimizer)
        # Anew by steps(); a loop that takes no turns there trains from here on.
        self.timing.begin(self.device)
        return optimizer

    def schedule(self, optimizer: torch.optim.Optimizer, loader: Any = None) -> Schedule:
        """Returns this trial's schedule over an optimizer.

        Call its ``step()`` after every step, or after every epoch: it follows the steps of the
        run, however often it is called.

        Args:
            optimizer: The optimizer, from :meth:`optimizer`.
            loader: The loader that :meth:`steps` will go through, where the budget counts epochs.

        Raises:
            SpecError: If the length of a full trial is not known.
        """
        if loader is not None:
            self.measure(length_of(loader))
        by_epoch = self.train.schedule_by == "epoch"
        if by_epoch and self.epoch_steps is None:
            raise SpecError(
                'train.schedule_by = "epoch" needs to know an epoch\'s length: use '
                'run.schedule(optimizer, loader), or schedule_by = "step".'
            )
        pace = Pace(lambda: self._steps.of(optimizer), lambda: self._steps.stepped(optimizer))
        schedule = build_schedule(
            self.config.schedule,
            self.config.schedule_values,
            optimizer,
            self.total_steps,
            clock=pace,
            epoch_steps=self.epoch_steps if by_epoch else None,
            evaluations=self.budget.evaluations,
            direction=self._spec.study.direction,
            momentum_warmup=self.config.momentum_warmup,
        )
        self._snapshot.restore("schedules", len(self._schedules), schedule)
        self._snapshot.restore("paces", len(self._schedules), pace)
        if optimizer in self._optimizers:
            # A new schedule sets the first step's learning rate; the optimizer has a later one.
            self._snapshot.restore("optimizers", self._optimizers.index(optimizer), optimizer)
        self._schedules.append(schedule)
        self._paces.append(pace)
        self._observers.append(schedule.observe)
        return schedule

    def checkpoint(self, **objects: Any) -> None:
        """Includes objects in this trial's checkpoints, or asks for one now.

        Model, optimizer, schedule, step and randomness are included by themselves.

        Args:
            objects: Other objects to keep, by name, such as a gradient scaler: anything with
                ``state_dict`` and ``load_state_dict``. When the trial continues from a
                checkpoint, each is restored at once. Without any, a checkpoint is written at the
                end of this step.

        Raises:
            WorkloadError: If an object has no state to keep.
        """
        for name, target in objects.items():
            if not (hasattr(target, "state_dict") and hasattr(target, "load_state_dict")):
                raise WorkloadError(
                    f"run.checkpoint was given {name}, a {type(target).__name__}: what it keeps "
                    "needs state_dict() and load_state_dict(). Keep a plain value in a class "
                    "that has both."
                )
            self._objects[name] = target
            self._snapshot.restore_object(name, target)
        self._save_asked = self._save_asked or not objects

    # What the loop does.

    @overload
    def steps(self) -> Iterator[int]: ...
    @overload
    def steps(self, loader: Any) -> Iterator[tuple[int, Any]]: ...
    def steps(self, loader: Any = None) -> Iterator[Any]:
        """Iterates over the steps of a full trial, from where a checkpoint left off.

        It ends early where the loop has called :meth:`stop`.

        Args:
            loader: Batches to go through, epoch after epoch, such as a DataLoader: something
                with a length. Its order is seeded by the study's seed and the epoch.

        Yields:
            The step, from 0; with a loader, the step and a batch.

        Raises:
            SpecError: If the length of a full trial is not known.
            WorkloadError: If a parameter group takes nothing, or an epoch gives another number of
                batches than the loader's length.
        """
        if loader is not None:
            self.measure(length_of(loader))
        steps = self._steps
        self.check_groups()
        self._check_schedules()
        batches: Iterator[Any] | None = None
        if loader is not None:
            batches = resume_batches(loader, self.seed, steps.turns, self.device)
        if not steps.begun:
            self._snapshot.restore_trained(self.networks.models)
            self._snapshot.restore_randomness(self.device)
        steps.begin()
        self.timing.begin(self.device)
        while not steps.is_over:
            if self.over is not None:
                raise self.over
            step = steps.enter()
            yield step if batches is None else (step, next(batches))
            self.timing.mark()
            if steps.leave():
                # What remains is the loop's return; a checkpoint here would leave it no step to
                # find its value in.
                break
            if self._save_asked:
                self._save_asked = False
                self._reporter.save()
            if not self._reporter.advance(steps.taken):
                self.over = Interrupted()

    def log(self, **values: float | torch.Tensor) -> None:
        """Logs numbers of the trial, by name; it is ranked by :meth:`report` alone.

        Logging counts as a sign of life. A tensor is read when numbers are next written, so that
        nothing waits for the device.
        """
        self.alive()
        for name, value in values.items():
            self._logged.add(self.taken, name, value)

    # What a worker asks.

    @property
    def resumable(self) -> bool:
        """Whether a trial can go on from a checkpoint written now: not in a step or at the end."""
        steps = self._steps
        within = steps.inside or (steps.begun and steps.is_over)
        return steps.begun and not within and bool(self._optimizers)

    @property
    def parameters(self) -> int:
        """How many numbers the models train."""
        return sum(
            p.numel() for m in self.networks.models for p in m.parameters() if p.requires_grad
        )

    def measure(self, epoch_steps: int | None = None, *, examples: int | None = None) -> None:
        """Sets how many steps an epoch has, or how many examples there are to train on.

        Args:
            epoch_steps: Steps of an epoch.
            examples: Size of the training set, which ``batch_size = "full"`` stands for.

        Raises:
            SpecError: If batches are full and an epoch has several steps.
            StaleCheckpointError: If the checkpoint is of a trial of another length.
        """
        self._steps.measure(epoch_steps, examples)
        self._snapshot.check(self.config, self.seed, self._steps.length)

    def check_groups(self) -> None:
        """Checks, once the optimizers are built, that every group takes a parameter.

        Raises:
            WorkloadError: If no model has a parameter for a group, or no model is the network of a
                table.
        """
        self.networks.check(self.config.groups)

    def take_logged(self) -> list[tuple[int, str, float]]:
        """Returns (step, name, value) of what was logged since the last call.

        This waits for the device.
        """
        return self._logged.take()

    def describe_loop(self) -> dict[str, Any]:
        """Returns what was unusual in the loop, by name, to be stored when the trial ends.

        ``stopped_early`` is the reason it gave, ``last_cost`` the cost of its last step in steps
        if more than one, ``unread`` the settings that it never read, ``networks`` the names of
        its models if any has one, and ``schedule_calls`` how often each schedule was stepped
        (:meth:`Pace.describe`), unless that was after each step of its optimizer.
        """
        steps = self._steps
        calls = [pace.describe() for pace in self._paces]
        closure = OPTIMIZERS[self.config.optimizer].closure
        usual = bool(calls) and all(
            call["optimizer_steps"] == 1 and (closure or call["steps"] == 1) for call in calls
        )
        found = {
            "stopped_early": steps.stopped,
            "last_cost": steps.last_cost if steps.last_cost > 1 else None,
            "unread": sorted(self._unread) or None,
            "schedule_calls": None if usual else calls,
            "networks": self.networks.names if any(self.networks.names) else None,
        }
        return {name: value for name, value in found.items() if value is not None}

    @property
    def stepped(self) -> bool:
        """Whether any of its optimizers has stepped, in this attempt or an earlier one."""
        return self._stepped_before or self._steps.stepped() > 0

    @property
    def has_optimizer(self) -> bool:
        """Whether its loop has asked for an optimizer."""
        return bool(self._optimizers)

    def describe_groups(self) -> list[dict[str, Any]]:
        """Returns the effective settings of every parameter group."""
        return self.networks.describe_groups(self._optimizers)

    def state_dict(self) -> dict[str, Any]:
        """Returns everything needed to continue later, between two steps."""
        return {
            "models": [model.state_dict() for model in self.networks.models],
            "trained": [list(trainable(model)) for model in self.networks.models],
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "schedules": [schedule.state_dict() for schedule in self._schedules],
            "paces": [pace.state_dict() for pace in self._paces],
            "averages": [average.state_dict() for average in self._averaging.averages],
            "objects": {name: target.state_dict() for name, target in self._objects.items()},
            "config": describe(self.config),
            "own": self.own,
            "seed": self.seed,
            "steps": self._steps.state_dict(),
            "stepped": self.stepped,
            "evaluated": self._evaluated,
            "rng": random_state(self.device),
            "timing": self.timing.state_dict(),
        }

    def _restore_counts(self, snapshot: Snapshot) -> None:
        snapshot.check(self.config, self.seed, self._steps.length)
        self._steps.load_state_dict(snapshot["steps"])
        snapshot.check_evaluated(self._steps)
        self._evaluated = snapshot["evaluated"]
        self._stepped_before = snapshot["stepped"]
        self.own |= snapshot["own"]
        self.timing = Timing(**snapshot["timing"])

    def _check_schedules(self) -> None:
        if not self._optimizers or self._schedules:
            return
        remedy = "call run.schedule(optimizer), and its step() after every step."
        if any(getattr(o, "frozen", None) for o in self._optimizers):
            raise SpecError(
                f"train.groups: a group with frozen_until is thawed by the schedule: {remedy}"
            )
        if self.config.momentum_warmup:
            raise SpecError(
                f"train.momentum_warmup: the momentum rises with the schedule: {remedy}"
            )
