"""A worker whose trials are trained by several ranks, and the same trials in one process."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.conftest import MakeSpec
from tests.service.worker.contexts import CPU, Bureau
from tuner.domain.trials import TrialRecord, decode
from tuner.service.interruption import Interruption
from tuner.service.worker.ranks.rank_lane import RankSetup, start_ranks
from tuner.service.worker.starts import Start
from tuner.store import Database
from tuner.training.loop import run_trial
from tuner.training.place import Place
from tuner.training.rehearsal import Rehearsal, prepare
from tuner.training.reporting import Evaluation
from tuner.training.run import Run


class Ranks(Bureau):
    """A bureau whose trials are trained by several ranks, or by one process."""

    size = 2

    def run(self, worker: str = "a", interruption: Interruption | None = None) -> TrialRecord:
        loop = prepare(self.study.spec, CPU)
        with contextlib.ExitStack() as stack:
            self._stack = stack
            return self.train(loop, worker=worker, interruption=interruption)

    def start(self, loop: Any) -> Start:
        if self.size == 1:
            return super().start(loop)
        return start_ranks(
            RankSetup(self.size, "cpu", 1, self.said.append), self._folder, self._stack
        )

    def folder(self, number: int = 0) -> Path:
        return self._folder / "trials" / str(number)

    def notes(self, rank: int, number: int = 0) -> list[str]:
        return (self.folder(number) / f"notes-{rank}.txt").read_text().splitlines()

    def prepare_deed(self, deed: str) -> None:
        (self._folder / "trials").mkdir(parents=True, exist_ok=True)
        (self._folder / "trials" / "deed").write_text(deed)

    def train_alone(self, record: TrialRecord, folder: Path) -> dict[int, float]:
        """Trains a trial's configuration in this process; returns its evaluations."""
        spec = self.study.spec
        recorder = Recorder(spec.study.metric)
        config, place = decode(spec, record.proposal), Place("alone", 0, folder)
        run = Run(spec, config, device=CPU, reporter=recorder, place=place)
        run_trial(prepare(spec, CPU), run)
        return recorder.evaluations


def make_ranks(
    database: Database, make_spec: MakeSpec, folder: Path, workload: str, **tables: Any
) -> Ranks:
    """Returns a bureau of a loop, whose trials all have one configuration and can be compared."""
    given: dict[str, Any] = {
        "study": {"name": "small", "workload": workload},
        "budget": {"trials": 20, "steps": 20, "evaluations": 4},
        "space": {"optimizers": ["adam"], "schedules": ["cosine"], "breadth": 1},
        "optimizer": {"adam": {"lr": 0.01}},
        "schedule": {"cosine": {"warmup": 0.1, "final_ratio": 0.01}},
        "search": {"sampler": "random", "portfolio": False, "pruner": "none"},
        "train": {"batch_size": 16, "checkpoint_s": 0.1},
    }
    return Ranks(database, make_spec, folder / "study", **(given | tables))


class Recorder(Rehearsal):
    """Keeps all evaluations of a metric by step."""

    def __init__(self, metric: str) -> None:
        super().__init__()
        self._metric = metric
        self.evaluations: dict[int, float] = {}

    def report(self, evaluations: Sequence[Evaluation | None]) -> Sequence[bool]:
        for evaluation in evaluations:
            assert evaluation is not None
            self.evaluations[evaluation.step] = evaluation.metrics[self._metric]
        return [True]


class Told(Interruption):
    """Asks for a stop once a file has a number of lines."""

    def __init__(self, path: Path, lines: int) -> None:
        super().__init__()
        self._path, self._lines = path, lines

    @property
    def requested(self) -> bool:
        return self._path.exists() and len(self._path.read_text().splitlines()) >= self._lines

    @requested.setter
    def requested(self, value: bool) -> None:
        pass
