"""A trial in training as its worker sees it: what is read, saved and recorded of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.confirmation import SPLIT_SEED
from tuner.domain.spec import StudySpec
from tuner.domain.trials import TrialConfig
from tuner.training.checkpoint_state import Snapshot
from tuner.training.checkpointing import Checkpointing, Keeper
from tuner.training.evaluations import Evaluations
from tuner.training.numbers import Logged
from tuner.training.optimization import Optimization
from tuner.training.reporting import Interrupted, Reporter
from tuner.training.settings import APPLIED_BY_LOOPS
from tuner.training.steps import Steps
from tuner.training.suggestions import Suggestions
from tuner.training.turns import Turns
from tuner.training.weight_averaging import Averaging


class TrialState:
    """The parts of a trial in training, and what its worker asks of them.

    :class:`Run` gives a loop what it needs of them; workers, trainers and processes that train
    for a trial use them here.

    Args:
        spec: The study, resolved.
        config: The trial's settings.
        device: The device it trains on.
        reporter: The worker, or a test, that takes the reports.
        state: The :meth:`state_dict` of an earlier attempt, to continue from.
        at_most: Steps to cut a full trial to, for a rehearsal.

    Attributes:
        unread: The settings of ``[train]`` that the loop has not read yet.
        split_seed: The seed that the loop splits its data by, or None while it has not asked.
        steps: Its steps.
        suggestions: The loop's own hyperparameters.
        optimization: Its optimizers and schedules.
        evaluations: Its evaluations, and how they end it.
        checkpointing: Its checkpoints.
        turns: What happens between two steps.
        logged: The numbers that it logs.
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
        self._reporter = reporter
        self.unread = set(APPLIED_BY_LOOPS)
        self.split_seed: int | None = None
        snapshot, seed = Snapshot(state), spec.search.seed
        closure = OPTIMIZERS[config.optimizer].closure
        steps = self.steps = Steps(spec.budget, config.batch_size, at_most, capped=closure)
        suggestions = self.suggestions = Suggestions(spec, config.own, reporter)
        optimization = self.optimization = Optimization(spec, config, steps, snapshot)
        average = Averaging(config, steps, seed, device)
        evaluations = self.evaluations = Evaluations(
            spec.study.metric, steps, optimization, average, reporter
        )
        self.checkpointing = Checkpointing(
            snapshot, config, seed, device, steps, suggestions, optimization, evaluations
        )
        self.turns = Turns(steps, optimization, evaluations, self.checkpointing, reporter, device)
        self.logged = Logged()

    def follow(self, keeper: Keeper) -> Turns:
        """Follows a trainer that owns the loop, and saves models, optimizers and schedules itself.

        The integrations use it; call it before :meth:`Run.optimizer`. The trainer takes the turns
        that are returned, and restores what it has kept.

        Args:
            keeper: The trainer, as it is asked to save.

        Raises:
            StaleCheckpointError: If the trial was saved by a loop that no trainer owned.
        """
        self.checkpointing.keep_by(keeper)
        return self.turns

    def track(
        self,
        taken: int,
        metrics: Mapping[str, float] | None = None,
        *,
        kept: bool = False,
    ) -> None:
        """Takes over the steps of a process that trains for this trial, instead of a loop's.

        Call it every second at least, also where there is nothing new.

        Args:
            taken: Steps that it has taken.
            metrics: An evaluation after these steps, if there is one.
            kept: Whether it keeps a checkpoint of them, from which it can go on.

        Raises:
            Pruned: As :meth:`Run.report`.
            Interrupted: If the trial is to stop where it is.
        """
        self.steps.follow(taken)
        self.checkpointing.kept_elsewhere = kept
        self.evaluations.timing.mark()
        if metrics is not None:
            self.evaluations.report(None, metrics)
        if not self._reporter.advance(self.steps.taken) and not self.steps.is_over:
            self.evaluations.over = Interrupted()
            raise self.evaluations.over

    def heed(self, name: str) -> None:
        """Takes note that a setting of ``[train]`` is applied.

        Args:
            name: The setting, such as ``batch_size``.
        """
        self.unread.discard(name)

    @property
    def evaluated(self) -> int:
        """Budgeted evaluations that have been reported."""
        return self.evaluations.reported

    @property
    def has_optimizer(self) -> bool:
        """Whether its loop has asked for an optimizer, or another process trains with one."""
        return bool(self.optimization.optimizers) or self.steps.elsewhere

    @property
    def parameters(self) -> int:
        """Numbers that the models train."""
        return self.optimization.networks.parameters

    def check_groups(self) -> None:
        """Checks that every group takes a parameter; see :meth:`Optimization.check_groups`."""
        self.optimization.check_groups()

    @property
    def stepped(self) -> bool:
        """Whether any of its optimizers has stepped, in this attempt or an earlier one."""
        return self.checkpointing.stepped

    @property
    def resumable(self) -> bool:
        """Whether a trial can go on from a checkpoint written now: not in a step or at the end."""
        return self.checkpointing.resumable

    def take_logged(self) -> list[tuple[int, str, float]]:
        """Returns the (step, name, value) logged since the last call; waits for the device."""
        return self.logged.take()

    def describe_groups(self) -> list[dict[str, Any]]:
        """Returns the effective settings of every parameter group."""
        return self.optimization.describe_groups()

    def describe_loop(self) -> dict[str, Any]:
        """Returns the unusual properties of the loop, by name, to be stored when the trial ends.

        They are those of :meth:`Steps.describe` and :meth:`Optimization.describe`; ``unread``,
        the settings that it never read; and ``split_seed``, if it has read that.
        """
        own: dict[str, Any] = {"unread": sorted(self.unread)} if self.unread else {}
        if self.split_seed is not None:
            own[SPLIT_SEED] = self.split_seed
        built = {} if self.steps.elsewhere else self.optimization.describe()
        return self.steps.describe() | built | own

    def state_dict(self) -> dict[str, Any]:
        """Returns everything needed to continue later, between two steps."""
        return self.checkpointing.state_dict()
