"""A worker's context, and trials trained on it by loops of a test's own."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.conftest import MakeSpec
from tuner.domain.trials import TrialRecord
from tuner.errors import LeaseLostError
from tuner.search import Proposer, needs_running
from tuner.service.interruption import Interruption
from tuner.service.liveness import WorkerLock
from tuner.service.worker.checkpoints import Checkpoints, sweep
from tuner.service.worker.context import WorkerContext
from tuner.service.worker.held_trial import HeldTrial
from tuner.service.worker.starts import Start, start_alone
from tuner.service.worker.task import Task
from tuner.service.worker.watchdog import Watchdog
from tuner.store import Database, Ledger, Patience, RecordReader, Studies, WorkerIdentity
from tuner.store.events import read_events
from tuner.store.records import read_record
from tuner.training.loop import TrainingLoop
from tuner.training.run import Run

CPU = torch.device("cpu")


class Counted(Interruption):
    """Asks for a stop when it has been looked at a number of times."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._looks = looks

    @property
    def requested(self) -> bool:
        self._looks -= 1
        return self._looks < 0

    @requested.setter
    def requested(self, value: bool) -> None:
        pass


class Bureau:
    """A study of own loops, and one worker on it.

    Attributes:
        said: What the worker logged.
        context: The worker's.
    """

    def __init__(
        self, database: Database, make_spec: MakeSpec, folder: Path, **tables: Any
    ) -> None:
        self.database = database
        self.study = Studies(database).create(make_spec(**tables))
        self.said: list[str] = []
        self._folder = folder
        self.context = self._open_context("a")
        self._contexts = {"a": self.context}

    def train(
        self,
        loop: TrainingLoop,
        stop_after: int = 10**9,
        interruption: Interruption | None = None,
        worker: str = "a",
    ) -> TrialRecord:
        """Takes the trial that was left, else a new one, and trains it with a loop.

        A worker other than the first takes every trial that is not its own.
        """
        if worker not in self._contexts:
            self._contexts[worker] = self._open_context(worker)
        context = self._contexts[worker]
        context.interruption = interruption or Counted(stop_after)
        context.catch_up()
        leases = context.ledger.take_over(lambda other: worker not in ("a", other), at_most=1)
        apart = (1, lambda config: False)
        [lease] = leases or context.promote(*apart) or context.start(*apart)
        record = read_record(self.database, self.study, lease.number)
        assert record is not None
        spec = self.study.spec
        checkpoints = Checkpoints(self._folder, self.study.uuid, lease)
        trial = HeldTrial(spec, lease, record, checkpoints)
        task = Task(spec, context, [trial], self.start(loop), self.said.append)
        try:
            task.train()
        except LeaseLostError:
            sweep(self._folder, self.database, self.study)
            raise
        trained = read_record(self.database, self.study, lease.number)
        assert trained is not None
        return trained

    def start(self, loop: TrainingLoop) -> Start:
        """Returns the start of a trial that a loop trains."""
        return start_alone(loop, CPU, self._folder)

    def history(self, number: int) -> list[str]:
        """Returns what happened to a trial before its end, as a kind and what is told of it."""
        return [
            ": ".join(filter(None, (event.kind, event.detail)))
            for event in read_events(self.database, self.study.uuid, number)
            if event.kind != "finished"
        ]

    def checkpoints(self, number: int) -> list[Path]:
        return list((self._folder / "checkpoints").glob(f"trial-{number}-*.pt"))

    def _open_context(self, worker: str) -> WorkerContext:
        identity = WorkerIdentity(worker, "host", 1, "cpu", "0")
        ledger = Ledger(self.database, self.study, identity)
        seed = ledger.register(0.0, lambda ordinal: ordinal)
        patience = Patience(limit_s=60.0, wait=threading.Event().wait, seed=0)
        follow = needs_running(self.study.spec)
        reader = RecordReader(self.database, self.study, follow_running=follow)
        interruption = Interruption()
        watchdog = Watchdog(interruption, stall_s=300.0)
        proposer = Proposer(self.study.spec, seed)
        worker_lock = WorkerLock(uuid.uuid4().hex)
        return WorkerContext(
            ledger,
            reader,
            proposer,
            patience,
            self._folder,
            seed,
            interruption,
            watchdog,
            worker_lock,
        )


def stepped(run: Run) -> Run:
    """Returns a run of which an optimizer has taken a step, as every trial's must."""
    run.optimizer(nn.Linear(1, 1)).step()
    return run


def loop_of(at_step: Callable[[Run, int], object]) -> TrainingLoop:
    """Returns a loop that trains a line, does something at every step, and reports the step."""

    def loop(run: Run) -> None:
        model = nn.Linear(2, 1)
        optimizer = run.optimizer(model)
        schedule = run.schedule(optimizer)
        for step in run.steps():
            optimizer.zero_grad()
            model(torch.ones(4, 2)).square().sum().backward()
            optimizer.step()
            schedule.step()
            at_step(run, step)
            run.report(step, val_loss=float(step))

    return loop
