"""A trial as a training loop sees it: it gives the optimizer and the steps, and takes reports."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast, overload

import torch
from torch import nn

from tuner.domain.budget import Budget
from tuner.domain.spec import StudySpec
from tuner.domain.train import Train
from tuner.domain.trials import TrialConfig
from tuner.optim import Schedule
from tuner.training.loader import length_of, resume_batches
from tuner.training.place import Place
from tuner.training.ranks import Ranks
from tuner.training.reporting import Reporter
from tuner.training.seeds import derive_seed, seed_all, split_seed
from tuner.training.settings import Settings
from tuner.training.trial_state import TrialState
from tuner.training.weight_averaging import Forward


class Run:
    """One trial, as a training loop sees it.

    A loop takes its optimizer, schedule and steps from a run and reports to it. A step is one
    iteration of the loop over :meth:`steps`. Where an optimizer calls a closure several times an
    iteration, as L-BFGS does, each call costs a step, so that every trial's budget buys equally
    many gradients.

    Example:
        >>> def train(run):
        ...     model, loader = build_model().to(run.device), build_loader()
        ...     optimizer = run.optimizer(model)
        ...     schedule = run.schedule(optimizer, loader)
        ...     for _, (inputs, labels) in run.steps(loader):
        ...         loss = loss_of(model(inputs), labels)
        ...         optimizer.zero_grad()
        ...         loss.backward()
        ...         optimizer.step()
        ...         schedule.step()
        ...         if run.due():
        ...             with run.evaluation():
        ...                 run.report(val_loss=validate(model))

    Args:
        spec: The study, resolved.
        config: The trial's settings.
        device: The device it trains on.
        reporter: The worker, or a test, that takes the reports.
        state: The :meth:`state_dict` of an earlier attempt, to continue from.
        at_most: Steps to cut a full trial to, for a rehearsal.
        place: The trial's number, and the folder for its files; None in a rehearsal.
        ranks: Its place among the processes that train the trial together.

    Attributes:
        seed: The study's seed; every source of randomness has been seeded from it.
        device: The device to train on.
        budget: The ``[budget]`` table of the study.
        train: The ``[train]`` table of the study, for the loop to apply.
        config: The trial's settings.
        spec: The study, resolved, with the trial's seed.
        place: The trial's number, and the folder for its files; None in a rehearsal.
        at_most: Steps that a full trial is cut to in a rehearsal, or None.
        rank: The number of this process among those that train the trial together, from 0.
        world_size: How many there are, 1 without ``--processes``.
        state: The trial as its worker sees it: what that reads, saves and records.
        metric: The metric that ranks trials, among those a loop reports.
        own: The values drawn for the loop's own hyperparameters, by name.
        networks: The models it optimizes, and the names that the loop gives them.
        evaluations: The evaluations reported so far, and how they end the trial.
        timing: Seconds spent in training and in evaluation, over all attempts.
        average_line: The metric on the line from the last weights (0) to their average (1), once
            :meth:`compare_average` has measured it.
        is_confirming: Whether a study's finalist runs again on a fresh seed, so that
            :meth:`report_test` is heard.
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
        place: Place | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self._ranks = ranks or Ranks()
        self.rank, self.world_size = self._ranks.rank, self._ranks.size
        self.spec, self.place, self.at_most = spec, place, at_most
        self.config, self.device, self.seed = config, device, spec.search.seed
        self.is_confirming = spec.confirmation is not None
        self.state = TrialState(
            spec, config, device=device, reporter=reporter, state=state, at_most=at_most
        )
        self.budget: Budget = spec.budget
        self.train = cast("Train", Settings(spec.train, self.state.unread))
        seed_all(derive_seed(self.seed, "init"))
        self.state.checkpointing.restore_counts()
        self.metric, self.own = spec.study.metric, self.state.suggestions.own
        self.evaluations = self.state.evaluations
        self.timing, self.average_line = self.evaluations.timing, self.evaluations.average_line
        self.networks = self.state.optimization.networks

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
        optimizer = self.state.optimization.build_optimizer(model, name)
        self.state.steps.watch(optimizer, self.evaluations.go_on)
        self.state.checkpointing.follow(model, optimizer)
        # Anew by steps(); a loop that takes no turns there trains from here on.
        self.timing.begin(self.device)
        return optimizer

    def schedule(self, optimizer: torch.optim.Optimizer, loader: Any = None) -> Schedule:
        """Returns this trial's schedule over an optimizer.

        Call its ``step()`` after every step, or after every epoch: it follows the steps of the
        run, however often it is called.

        Args:
            optimizer: The optimizer, from :meth:`optimizer`, or a trainer's wrapper of it, such as
                Accelerate's.
            loader: The loader that :meth:`steps` will go through, where the budget counts epochs.

        Raises:
            SpecError: If the length of a full trial is not known.
        """
        if loader is not None:
            self.measure(length_of(self._ranks.share(loader), self.epoch_steps))
        return self.state.optimization.build_schedule(optimizer)

    def checkpoint(self, **objects: Any) -> None:
        """Includes objects in this trial's checkpoints, or asks for one now.

        Model, optimizer, schedule, step and randomness are included by themselves.

        Args:
            objects: Other objects by name, such as a gradient scaler, with ``state_dict`` and
                ``load_state_dict``; each is restored at once where the trial continues from a
                checkpoint. Without any, a checkpoint is written at the end of this step.

        Raises:
            WorkloadError: If an object has no state to keep.
        """
        self.state.checkpointing.add(objects)
        self.state.checkpointing.requested |= not objects

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Suggests a float in [low, high] for a hyperparameter of the loop's own.

        Args:
            name: Its name, a plain word; the same in every trial of a study.
            low: Smallest value.
            high: Largest value.
            log: Whether to search on a logarithmic scale.

        Raises:
            WorkloadError: If the name or the range breaks a rule, or the trial has asked for this
                name in another range.

        Example:
            >>> dropout = run.suggest_float("dropout", 0.0, 0.5)  # doctest: +SKIP
        """
        return self.state.suggestions.suggest_float(name, low, high, log=log)

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """Suggests an int in [low, high], as :meth:`suggest_float` does a float.

        Args:
            name: Its name.
            low: Smallest value, a whole number.
            high: Largest value, likewise.
            log: Whether to search on a logarithmic scale.

        Raises:
            WorkloadError: As :meth:`suggest_float`, and if an end is not a whole number or too
                large for the database to return it exactly.

        Example:
            >>> width = run.suggest_int("width", 16, 128, log=True)  # doctest: +SKIP
        """
        return self.state.suggestions.suggest_int(name, low, high, log=log)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Suggests one of several choices: numbers, strings, booleans or None.

        Args:
            name: The name of a hyperparameter of the loop's own.
            choices: The choices, at least one, all different.

        Raises:
            WorkloadError: As :meth:`suggest_float`, and if a choice is anything else, or equals
                another one.

        Example:
            >>> activation = run.suggest_categorical("act", ["relu", "gelu"])  # doctest: +SKIP
        """
        return self.state.suggestions.suggest_categorical(name, choices)

    def measure(self, epoch_steps: int | None = None, *, examples: int | None = None) -> None:
        """Sets how many steps an epoch has, or how many examples there are to train on.

        Args:
            epoch_steps: Steps of an epoch.
            examples: Size of the training set, which ``batch_size = "full"`` stands for.

        Raises:
            SpecError: If batches are full and an epoch has several steps.
            StaleCheckpointError: If the checkpoint is of a trial of another length.
        """
        self.state.steps.measure(epoch_steps, examples)
        self.state.checkpointing.check_length()

    @overload
    def steps(self) -> Iterator[int]: ...
    @overload
    def steps(self, loader: Any) -> Iterator[tuple[int, Any]]: ...
    def steps(self, loader: Any = None) -> Iterator[Any]:
        """Iterates over the steps of a full trial, from where a checkpoint left off.

        It ends early where the loop has called :meth:`stop`.

        Args:
            loader: Batches to go through, epoch after epoch, such as a DataLoader. If it has no
                length, as over an iterable dataset, ``budget.epoch_steps`` or :meth:`measure`
                tells it. Its order is seeded by the study's seed and the epoch. Of several ranks
                each takes its part of them: every n-th batch.

        Yields:
            The step, from 0; with a loader, the step and a batch.

        Raises:
            SpecError: If the length of a full trial is not known.
            WorkloadError: If a parameter group takes nothing, or an epoch gives another number of
                batches than the loader's length, or than it was told to have.
        """
        if loader is not None:
            loader = self._ranks.share(loader)
            self.measure(length_of(loader, self.epoch_steps))
        turns, batches = self.state.turns, None
        if loader is not None:
            batches = resume_batches(loader, self.seed, self.turns, self.device, self.epoch_steps)
        if self.rank and not self.state.steps.begun:
            # The others draw other masks and noise than the first.
            seed_all(derive_seed(self.seed, "rank", self.rank))
        turns.begin()
        while (step := turns.enter()) is not None:
            yield step if batches is None else (step, next(batches))
            turns.leave()

    def due(self, step: int | None = None) -> bool:
        """Returns whether the budget asks for an evaluation after this step.

        Args:
            step: The step, as the loop counts it from 0; left out, the present one.
        """
        return self.state.steps.is_due(step, self.evaluations.reported)

    def report(self, step: int | None = None, **metrics: float | torch.Tensor) -> None:
        """Reports an evaluation; the study's metric must be among its metrics.

        Reporting at every step is cheap: between the points where the budget asks for an
        evaluation nothing is written, and nobody is stopped.

        Args:
            step: The step, as the loop counts it from 0; left out, the present one. One that lies
                behind the optimizer's own steps, such as an epoch's number, is ignored.
            metrics: The measured numbers, by name.

        Raises:
            Pruned: If the trial is to stop because it is behind, or its metric is not finite.
            WorkloadError: If the study's metric is missing, a metric is not a single number, a
                parameter group takes no parameter, or no database can keep a name.
        """
        self.evaluations.report(step, metrics)

    def report_test(self, **metrics: float | torch.Tensor) -> None:
        """Reports metrics over test data, which are kept once the trial is complete.

        Only a confirmation keeps them: in a search the call does nothing, so that no choice can
        depend on test data. Measure them where :attr:`is_confirming`, once, after the last step.
        Of several calls the last counts. A number that is not finite is kept as unknown.

        Args:
            metrics: The measured numbers, by name.

        Raises:
            WorkloadError: If one is not a single number, or no database can keep its name.
        """
        if self.is_confirming:
            self.evaluations.report_test(metrics)

    def evaluation(
        self, batches: Iterable[Any] | None = None, *, forward: Forward | None = None
    ) -> contextlib.AbstractContextManager[Callable[[], object]]:
        """Puts the weights to evaluate into the models, and times the block as evaluation.

        Where the trial averages its weights and averaging has begun, the models hold the averages
        within the block; afterwards they are as they were, buffers included.

        Args:
            batches: Training data, such as a DataLoader, to measure the BatchNorm statistics of
                averaged weights; not that of :meth:`steps` if that one has persistent workers.
            forward: Passes a batch through the models; left out, the first element of a batch
                goes through the only model.

        Returns:
            A context of :meth:`alive`, to call now and then in a long evaluation; a WorkloadError
            is raised there if the averaged model has BatchNorm and there are no batches.
        """
        return self.evaluations.evaluation(batches, forward)

    def compare_average(
        self,
        measure: Callable[[], float | torch.Tensor],
        batches: Iterable[Any] | None = None,
        *,
        forward: Forward | None = None,
    ) -> None:
        """Evaluates points on the line from the last weights to their average, for the report.

        Call it after the last step. It does nothing if the trial does not average.

        Args:
            measure: Returns the study's metric for the models as they are when it is called.
            batches: As in :meth:`evaluation`.
            forward: As in :meth:`evaluation`.
        """
        self.evaluations.compare_average(measure, batches, forward)

    def alive(self) -> object:
        """Gives a sign of life in a long evaluation, so that it does not count as hung."""
        return self.evaluations.alive()

    def log(self, **values: float | torch.Tensor) -> None:
        """Logs numbers of the trial, by name; it is ranked by :meth:`report` alone.

        Logging is a sign of life. A tensor is read only when numbers are next written.

        Args:
            values: The numbers by name, such as ``train_loss``; a tensor has one element.

        Raises:
            WorkloadError: If one is not a single number, or no database can keep its name.
        """
        self.alive()
        for name, value in values.items():
            self.state.logged.add(self.taken, name, value)

    def stop(self, why: str) -> None:
        """Ends the trial early on purpose; it is ranked with the full ones.

        Call ``break`` or ``return`` after it; a loop over :meth:`steps` ends after this step.

        Args:
            why: The reason for the report, not empty, such as ``"no gain for 5 evaluations"``.
        """
        self.state.steps.stop(why)

    @property
    def split_seed(self) -> int:
        """A seed below 2**32 to split the data by: one for a search, others for fresh seeds.

        A loop that reads it is taken to split by it, and the verdict on its study to cover splits.
        """
        self.state.split_seed = split_seed(self.seed)
        return self.state.split_seed

    @property
    def batch_size(self) -> int:
        """Examples a step: of several ranks, this one's share.

        A SpecError is raised if ``full`` awaits :meth:`measure`, or ranks cannot share equally.
        """
        self.state.unread.discard("batch_size")
        return self._ranks.share_of(self.state.steps.batch_size)

    @property
    def taken(self) -> int:
        """Steps taken, this one included; without :meth:`steps`, those of the optimizer."""
        return self.state.steps.taken

    @property
    def trained(self) -> int:
        """Steps of a full trial that have been trained, as the loop counts them."""
        return self.state.steps.trained

    @property
    def turns(self) -> int:
        """Finished iterations of the loop: equals steps, except for optimizers with closures."""
        return self.state.steps.turns

    @property
    def length(self) -> int | None:
        """Steps of a full trial, or None while they are not known."""
        return self.state.steps.length

    @property
    def total_steps(self) -> int:
        """Steps of a full trial; a SpecError is raised while they are not known."""
        return self.state.steps.total

    @property
    def epoch_steps(self) -> int | None:
        """Steps of an epoch, or None if it is not known."""
        return self.state.steps.epoch_steps
