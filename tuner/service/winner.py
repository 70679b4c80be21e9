"""A study's winner, for your own code: its optimizer and schedule in one line each."""

from __future__ import annotations

import contextlib
import functools
import itertools
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from tuner.analysis.summary import StudySummary, choose_trial, refuse_companion
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.study_section import Direction
from tuner.domain.trials import TrialConfig
from tuner.errors import NotFoundError, TunerError, WorkloadError
from tuner.optim import Schedule, build_optimizer, build_schedule
from tuner.optim.averages import Average, build_average
from tuner.optim.wrapped import unwrap
from tuner.service.summaries import read_results, read_summary
from tuner.store import Database, Studies, StudyHandle, default_url, open_database


@dataclass(frozen=True)
class Winner:
    """The best complete trial of a study.

    Attributes:
        study: The study's name.
        trial: The trial's number.
        value: What it is ranked by: its metric, or its steps or seconds to the study's target.
        config: Its optimizer, schedule and average with all hyperparameters.
        steps: Steps of a full trial.
        spare_vectors: Whether it spared biases and norms from weight decay.
        epoch_steps: Steps of an epoch, if its schedule changed by epoch.
        evaluations: Evaluations of a full trial, in which a schedule may measure its patience.
        direction: Whether a lower or a higher metric is better.
        schedule_calls: How the loop stepped the schedule of each of its optimizers, in their
            order; None where it did after every optimizer step.
        networks: The names its loop gave to the models it optimized, None for one without a
            name; empty where none had a name.
    """

    study: str
    trial: int
    value: float
    config: TrialConfig
    steps: int
    spare_vectors: bool = False
    epoch_steps: int | None = None
    evaluations: int = 10
    direction: Direction = "minimize"
    schedule_calls: tuple[Mapping[str, int | None], ...] | None = None
    networks: tuple[str | None, ...] = ()
    # Reads the study again, for those who look at the winner in a notebook.
    _read: Callable[[], StudySummary] | None = field(default=None, repr=False, compare=False)
    # The place among the loop's optimizers of each one that was built here.
    _places: WeakKeyDictionary[torch.optim.Optimizer, int] = field(
        default_factory=WeakKeyDictionary, init=False, repr=False, compare=False
    )
    _built: itertools.count[int] = field(
        default_factory=itertools.count, init=False, repr=False, compare=False
    )

    def __str__(self) -> str:
        settings = ", ".join(
            f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}"
            for key, value in self.params.items()
        )
        return (
            f"{self.config.optimizer} with the {self.config.schedule} schedule ({settings}): "
            f"{self.value:.4g}, trial {self.trial} of {self.study!r}"
        )

    def _repr_html_(self) -> str | None:
        """Returns the study's answer as a card, which notebooks show; None without the database."""
        from tuner.report.html import to_card  # noqa: PLC0415 (only notebooks draw it)

        summary = self._look()
        return None if summary is None else to_card(summary)

    def _repr_markdown_(self) -> str:
        """Returns the same for notebooks that show no HTML; without the database, settings."""
        from tuner.report.markdown import to_card  # noqa: PLC0415 (only notebooks draw it)

        summary = self._look()
        if summary is not None:
            return to_card(summary)
        settings = ", ".join(f"`{key} = {value}`" for key, value in self.params.items())
        return f"**{self.config.optimizer} with {self.config.schedule}**: {settings}"

    def _look(self) -> StudySummary | None:
        """Returns the study as it is now, or None where it cannot be read."""
        if self._read is not None:
            with contextlib.suppress(TunerError):
                return self._read()
        return None

    @property
    def params(self) -> dict[str, Any]:
        """Every hyperparameter by name, in torch's form."""
        return self.config.to_json()

    def optimizer(
        self, model: nn.Module, steps: int | None = None, name: str | None = None
    ) -> torch.optim.Optimizer:
        """Returns the winner's optimizer over a model, parameter groups included.

        A loop of several models without names calls it in the order in which it called
        ``run.optimizer``.

        Args:
            model: The model, on its device.
            steps: How many steps there will be; left out, as many as in the study.
            name: The name that the loop gave to the model, if any.

        Raises:
            SpecError: If the optimizer's package is not installed.
            WorkloadError: If the optimizer cannot train this model, or no model had this name.
        """
        if name not in (self.networks or (None,)):
            known = " or ".join(f"name={network!r}" for network in self.networks)
            raise WorkloadError(
                f"winner.optimizer was given name={name!r}, but "
                + (
                    f"the winner's loop named its models: use {known}."
                    if known
                    else "the winner's loop named no model: leave the name out."
                )
            )
        optimizer = build_optimizer(
            self.config.optimizer,
            self.config.values_of(name),
            model,
            self.config.groups,
            spare_vectors=self.spare_vectors,
            total_steps=steps or self.steps,
            network=name,
        )
        built = next(self._built)
        self._places[optimizer] = built if name is None else self.networks.index(name)
        return optimizer

    def schedule(self, optimizer: torch.optim.Optimizer, steps: int | None = None) -> Schedule:
        """Returns the winner's schedule over an optimizer; call its ``step()`` as the loop did.

        It follows the optimizer's own steps, so that it may be stepped after each of them or only
        after every epoch. Where the loop took no schedule, the learning rate stays as it is.

        For ``plateau``, also call its ``observe`` with the metric after each evaluation.

        Args:
            optimizer: The optimizer, or a trainer's wrapper of it, such as Accelerate's.
            steps: How many steps there will be; left out, as many as in the study.
        """
        optimizer = unwrap(optimizer, self._places)
        if self.schedule_calls == ():
            return build_schedule("constant", {"warmup": 0.0}, optimizer, steps or self.steps)
        return build_schedule(
            self.config.schedule,
            self.config.schedule_values,
            optimizer,
            steps or self.steps,
            clock=self._clock(optimizer),
            epoch_steps=self.epoch_steps,
            evaluations=self.evaluations,
            direction=self.direction,
            momentum_warmup=self.config.momentum_warmup,
        )

    def _clock(self, optimizer: torch.optim.Optimizer) -> Callable[[], int]:
        """Returns a function that tells a schedule the trial's step, as the trial's run did."""
        if OPTIMIZERS[self.config.optimizer].closure:
            return _count_losses(optimizer)
        counted = _count_steps(optimizer)
        if not self.schedule_calls:
            return counted
        calls = self.schedule_calls[self._places.get(optimizer, 0) % len(self.schedule_calls)]
        steps, optimizer_steps = calls["steps"], calls["optimizer_steps"]
        if not steps:
            return counted
        if not optimizer_steps:
            # The optimizer steps now and then, as with accumulated gradients: calls are regular.
            asked = itertools.count()
            return lambda: next(asked) * steps
        return lambda: counted() * steps // optimizer_steps

    def average(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, steps: int | None = None
    ) -> Average | None:
        """Returns the winner's average of weights, or None; it updates as the optimizer steps.

        Evaluate within ``with average.applied():``; where the model has BatchNorm, call torch's
        ``update_bn`` over training data there first.

        Args:
            model: The model.
            optimizer: The optimizer, whose steps are counted from here on.
            steps: How many steps there will be; left out, as many as in the study.
        """
        average = build_average(self.config.average, self.config.average_values, model)
        if average is not None:
            optimizer = unwrap(optimizer, self._places)
            closure = OPTIMIZERS[self.config.optimizer].closure
            clock = _count_losses(optimizer) if closure else _count_steps(optimizer)
            total = steps or self.steps
            optimizer.register_step_post_hook(lambda *_: average.follow(clock(), total))
        return average


def _count_steps(optimizer: torch.optim.Optimizer) -> Callable[[], int]:
    """Returns a function that counts the steps of an optimizer from here on."""
    taken = 0

    def count(*_: object) -> None:
        nonlocal taken
        taken += 1

    optimizer.register_step_post_hook(count)
    return lambda: taken


def _count_losses(optimizer: torch.optim.Optimizer) -> Callable[[], int]:
    """Returns a function that reads from L-BFGS's state how often its closure was called."""
    first = optimizer.param_groups[0]["params"][0]
    return lambda: int(optimizer.state[first].get("func_evals", 0))


def best(name: str, storage: str | None = None, *, trial: int | None = None) -> Winner:
    """Returns a study's winner: the verdict's, if its finalists ran again on fresh seeds.

    Args:
        name: The study's name.
        storage: The database's URL; left out, ``TUNER_STORAGE``, else the URL in the file
            ``TUNER_STORAGE_FILE``, else ``sqlite:///tuner.db``.
        trial: The number of another complete trial to return.

    Raises:
        NotFoundError: If there is no such study or trial, or no trial of it is complete.
        SpecError: If the study confirms another one, whose winner it helps to find.
        StorageError: If the database cannot be read.

    Example:
        >>> winner = tuner.best("digits")  # doctest: +SKIP
        >>> optimizer = winner.optimizer(model)  # doctest: +SKIP
        >>> schedule = winner.schedule(optimizer)  # doctest: +SKIP
    """
    summary = _read_study(name, storage, trial, read_summary)
    best_trial = summary.best
    value = best_trial.record.value if best_trial else None
    if best_trial is None or value is None:
        raise NotFoundError(
            f"The study {name!r} has no complete trial yet, so there is no winner: "
            f"run it with 'tuner study run {shlex.quote(name)}'."
        )
    record, spec = best_trial.record, summary.spec
    return Winner(
        study=name,
        trial=record.number,
        value=value,
        config=best_trial.config,
        steps=best_trial.full_steps,
        spare_vectors=spec.train.no_decay_on_biases_and_norms,
        epoch_steps=record.attributes.get("epoch_steps"),
        evaluations=spec.budget.evaluations,
        direction=spec.study.direction,
        schedule_calls=best_trial.schedule_calls,
        networks=tuple(record.attributes.get("networks", ())),
        _read=functools.partial(_read_study, name, storage, trial, read_results),
    )


def _read_study(
    name: str,
    storage: str | None,
    trial: int | None,
    read: Callable[[Database, StudyHandle], StudySummary],
) -> StudySummary:
    """Returns the summary of a study that has a winner of its own; see :func:`best`."""
    database = open_database(storage or default_url())
    try:
        summary = read(database, Studies(database).find(name))
    finally:
        database.close()
    refuse_companion(summary)
    return summary if trial is None else choose_trial(summary, trial)
