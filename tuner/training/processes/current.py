"""The trial that this process trains, for a command's own code: ``tuner.current()``."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from tuner.domain.catalog.dimensions import Choice, Dimension, Fixed, Int, Value
from tuner.domain.spec import StudySpec
from tuner.errors import NotFoundError, WorkloadError
from tuner.training.processes.channel import Channel, connect
from tuner.training.processes.trial_file import FILE, read_config, read_trial
from tuner.training.reporting import Diverged, Evaluation, Pruned

if TYPE_CHECKING:
    import torch
    from torch import nn

    from tuner.optim import Schedule
    from tuner.training.run import Run

_LOOK_S = 0.25


class CurrentTrial:
    """The trial that this process trains, as ``tuner.current()`` returns it.

    Without a worker, where the file of a trial is all there is, reports go nowhere and nothing is
    pruned: so the same script runs by hand.

    Args:
        tree: What the trial's file holds.
        channel: The connection to the worker, or None without one.

    Attributes:
        settings: The trial's settings by name, as placeholders have them.
        study: The study's name.
        number: The trial's number in its study.
        folder: A folder of the trial's own, which it keeps over pauses and take-overs.
        seed: The seed of all that is random.
        split_seed: A seed to split the data by.
        device: The name of the device to train on.
        resumes: Whether an earlier attempt has left a checkpoint in the folder to go on from.
        step: The steps, or epochs, that it had reported.
        is_confirming: Whether a finalist runs again, so that :meth:`report_test` is heard.
    """

    def __init__(self, tree: Mapping[str, Any], channel: Channel | None) -> None:
        self._tree, self._channel = tree, channel
        self._pid = os.getpid()
        self._has_ranks = os.environ.get("WORLD_SIZE", "1") != "1"
        self._rank = int(os.environ.get("RANK", "0")) if self._has_ranks else 0
        self._state, self._looked_at = "on", -math.inf
        self.settings: Mapping[str, Any] = dict(tree["settings"])
        self.study, self.number = str(tree["study"]), int(tree["trial"])
        self.folder = Path(tree["folder"])
        self.seed, self.split_seed = int(tree["seed"]), int(tree["split_seed"])
        self.device = str(tree["device"])
        self.resumes, self.step = bool(tree["resume"]), int(tree["step"])
        self.is_confirming = bool(tree["is_confirming"])

    @property
    def steps(self) -> int | None:
        """Steps of a full trial; None where the budget counts epochs."""
        return self._tree.get("steps")

    @property
    def epochs(self) -> int | None:
        """Epochs of a full trial; None where the budget counts steps."""
        return self._tree.get("epochs")

    def report(self, step: int | None = None, *, epoch: int | None = None, **metrics: Any) -> None:
        """Reports an evaluation; the study's metric must be among its metrics.

        Args:
            step: The step, as the loop counts it from 0. Left out, the present one of
                :meth:`batches` or :meth:`optimizer`; without these the evaluation counts as the
                last one.
            epoch: The epoch, likewise from 0, where the budget counts epochs.
            metrics: The measured numbers, by name.

        Raises:
            Pruned: If the trial is to stop because it is behind, or its metric is not finite.
            WorkloadError: If the study's metric is missing, or a metric is no number.
        """
        if self._has_run and epoch is None:
            try:
                self._run.report(step, **metrics)
            except Diverged as error:
                with contextlib.suppress(Pruned):
                    self._report(error.step, {str(self._tree["metric"]): math.nan})
                raise
            return
        place = step if epoch is None else epoch
        self._report(None if place is None else place + 1, metrics)

    def _report(self, count: int | None, metrics: Mapping[str, Any]) -> None:
        values = {name: _to_float(name, value) for name, value in metrics.items()}
        self._ask("report", together=True, count=count, metrics=values)
        if self._state == "pruned":
            raise Pruned(f"behind after {count}")

    def log(self, **values: Any) -> None:
        """Logs numbers for the trial's curves; see :meth:`tuner.Run.log`."""
        self._ask("log", values={name: _to_float(name, value) for name, value in values.items()})

    def report_test(self, **metrics: Any) -> None:
        """Reports metrics over test data; see :meth:`tuner.Run.report_test`."""
        values = {name: _to_float(name, value) for name, value in metrics.items()}
        self._ask("test", metrics=values)

    def alive(self) -> None:
        """Gives a sign of life, in a long evaluation."""
        self._look()

    @property
    def should_stop(self) -> bool:
        """Whether the trial is to end here: pruned, trained in full, paused or stopped.

        Of several ranks all have to ask, and get the same answer.
        """
        if self._has_ranks:
            self._ask("look", together=True)
        else:
            self._look()
        return self._state != "on"

    def stop(self, why: str) -> None:
        """Ends the trial early on purpose; see :meth:`tuner.Run.stop`. Leave the loop then."""
        self._ask("stop", why=why)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Suggests a float; see :meth:`tuner.Run.suggest_float`."""
        return float(self._suggest(name, low=low, high=high, log=log))

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """Suggests a whole number; see :meth:`tuner.Run.suggest_int`."""
        return int(self._suggest(name, low=low, high=high, log=log, whole=True))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Suggests one of several choices; see :meth:`tuner.Run.suggest_categorical`."""
        return self._suggest(name, choices=list(choices))

    def _suggest(self, name: str, **axis: Any) -> Any:
        if name in self._tree["own"]:
            return self._tree["own"][name]
        if self._channel is None:
            raise WorkloadError(
                f"There is no worker to suggest {name}: give it in [own] of the study file, or in "
                f"the file that {FILE} names."
            )
        return self._ask("suggest", together=True, name=name, **axis)["value"]

    # With torch.

    def optimizer(self, model: nn.Module, name: str | None = None) -> torch.optim.Optimizer:
        """Returns this trial's optimizer over a model; see :meth:`tuner.Run.optimizer`."""
        return self._run.optimizer(model, name)

    def schedule(self, optimizer: torch.optim.Optimizer, loader: Any = None) -> Schedule:
        """Returns this trial's schedule over an optimizer; see :meth:`tuner.Run.schedule`."""
        schedule = self._run.schedule(optimizer, loader)
        self._measure()
        return schedule

    @overload
    def batches(self) -> Iterator[int]: ...
    @overload
    def batches(self, loader: Any) -> Iterator[tuple[int, Any]]: ...
    def batches(self, loader: Any = None) -> Iterator[Any]:
        """Iterates over the steps of a full trial; see :meth:`tuner.Run.steps`.

        Args:
            loader: Batches to go through, epoch after epoch.

        Yields:
            The step, from 0; with a loader, the step and a batch.
        """
        turns = self._run.steps() if loader is None else self._run.steps(loader)
        for turn in turns:
            if not self._measured:
                self._measure()
            yield turn

    def due(self, step: int | None = None) -> bool:
        """Returns whether the budget asks for an evaluation now; see :meth:`tuner.Run.due`."""
        return self._run.due(step)

    def evaluation(
        self, batches: Iterable[Any] | None = None, *, forward: Any = None
    ) -> contextlib.AbstractContextManager[Callable[[], object]]:
        """Puts the weights to evaluate into the models; see :meth:`tuner.Run.evaluation`."""
        return self._run.evaluation(batches, forward=forward)

    @functools.cached_property
    def _run(self) -> Run:
        import torch

        from tuner.training.run import Run

        spec = StudySpec.model_validate(self._tree["spec"])
        run = Run(
            spec,
            read_config(self._tree),
            device=torch.device(self.device),
            reporter=_ToWorker(self._report, self._look, self._suggest),
            at_most=self._tree["at_most"],
        )
        if self.step:
            run.state.track(self.step)
        return run

    @property
    def _has_run(self) -> bool:
        return "_run" in vars(self)

    @functools.cached_property
    def _measured(self) -> bool:
        return False

    def _measure(self) -> None:
        """Tells the worker how many steps an epoch has, where that is what it counts."""
        if self.epochs is not None and self._run.epoch_steps is not None and not self._measured:
            self._ask("measure", epoch_steps=self._run.epoch_steps)
        vars(self)["_measured"] = self._run.length is not None

    # With the worker.

    def _look(self, count: int | None = None) -> str:
        """Returns what is to become of the trial, as the worker said a moment ago at most."""
        if time.monotonic() - self._looked_at > _LOOK_S and self._state == "on":
            self._looked_at = time.monotonic()
            self._ask("look", count=count)
        return self._state

    def _ask(self, kind: str, *, together: bool = False, **fields: Any) -> Mapping[str, Any]:
        """Asks the worker; of several ranks only the first, unless all are to hear the answer."""
        if os.getpid() != self._pid:
            raise WorkloadError(
                f"Process {os.getpid()} uses the trial of process {self._pid}, from which it was "
                "forked: have it send what it finds to that one, by a pipe or a queue."
            )
        if self._channel is None or (self._rank and not together):
            return {}
        message = {"do": kind, "rank": self._rank, "together": together, **fields}
        answer = self._channel.receive() if self._channel.send(message) else None
        if answer is None:
            self._state = "stop"  # the worker has gone, and this process goes with it
            return {"value": None}
        if "error" in answer:
            raise WorkloadError(str(answer["error"]))
        self._state = str(answer.get("state", self._state))
        return answer


@dataclass(frozen=True)
class _ToWorker:
    """Reports a run of this process to the worker that has started it.

    Attributes:
        tell: Reports an evaluation after some steps.
        look: Tells how many steps are taken, and returns what is to become of the trial.
        ask: Asks for a value of a hyperparameter by its name and axis.
    """

    tell: Callable[[int, Mapping[str, float]], None]
    look: Callable[[int], str]
    ask: Callable[..., Any]

    def report(self, evaluations: Sequence[Evaluation | None]) -> Sequence[bool]:
        """Reports an evaluation; returns whether the trial goes on."""
        for evaluation in evaluations:
            if evaluation is not None:
                try:
                    self.tell(evaluation.step, evaluation.metrics)
                except Pruned:
                    return [False]
        return [True]

    def advance(self, step: int) -> bool:
        """Tells that training goes on; returns whether it is to."""
        return self.look(step) != "stop"

    def suggest(self, name: str, axis: Dimension) -> Value:
        """Asks for a value of a hyperparameter."""
        match axis:
            case Fixed():
                return axis.value
            case Choice():
                found: Value = self.ask(name, choices=list(axis.choices))
            case _:
                whole = isinstance(axis, Int)
                found = self.ask(name, low=axis.low, high=axis.high, log=axis.log, whole=whole)
        return found

    def diverged(self, lane: int, step: int) -> None:
        """Does nothing: a run ends by itself."""

    def left(self) -> Collection[int]:
        """Returns nothing: a run has no lanes."""
        return ()

    def warn(self, text: str) -> None:
        """Writes a sentence to the trial's output."""
        sys.stderr.write(f"{text}\n")

    def save(self) -> None:
        """Does nothing: a command keeps checkpoints of its own."""


@functools.cache
def current() -> CurrentTrial:
    """Returns the trial that this process trains, of a study with ``command``.

    Raises:
        NotFoundError: If this process trains none.
    """
    path = os.environ.get(FILE)
    if not path:
        raise NotFoundError(
            "tuner.current(): this process trains no trial of a study with command = […]. To run "
            f"the script by hand, name a trial's file, {FILE}=trial.json; a training loop takes "
            "its trial as an argument, def train(run)."
        )
    return CurrentTrial(read_trial(path), connect(os.environ))


def _to_float(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise WorkloadError(
            f"{name} is {value!r:.80}, but it has to be a single number: give its mean, such as "
            f"{name}.mean()."
        ) from None
