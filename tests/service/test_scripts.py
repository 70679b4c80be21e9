"""Scripts of other people: each is tuned, and its winner put back by hand gives what it gave."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tuner
from tests.conftest import MakeSpec, forgotten
from tests.service import scripts
from tests.service.scripts import EPOCHS, SCRIPTS, STEPS
from tuner.domain.trials import Outcome
from tuner.service.interruption import Interruption
from tuner.service.worker.worker import Worker
from tuner.store import Database, Studies, read_records

_SPACES = {
    "full_batches": {"optimizers": ["lbfgs", "momentum"], "schedules": ["cosine"]},
}
_METRICS = {"policy": {"metric": "episode_return", "direction": "maximize"}}


class ByHand:
    """Stands in for a run: the winner's optimizer and schedule, and nobody to report to."""

    def __init__(self, winner: tuner.Winner) -> None:
        self._winner = winner

    def optimizer(self, model: nn.Module, name: str | None = None) -> torch.optim.Optimizer:
        return self._winner.optimizer(model, name=name)

    def schedule(self, optimizer: torch.optim.Optimizer, loader: Any = None) -> Any:
        return self._winner.schedule(optimizer)

    def report(self, step: int | None = None, **metrics: Any) -> None:
        pass

    def log(self, **values: Any) -> None:
        pass

    def stop(self, why: str) -> None:
        pass


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_tuned_and_its_winner_is_put_back_by_hand(
    name: str, project: Path, database: Database, make_spec: MakeSpec
) -> None:
    (project / "their_scripts.py").write_text(Path(scripts.__file__).read_text())
    spec = make_spec(
        study={"name": name, "workload": f"their_scripts:{name}", **_METRICS.get(name, {})},
        budget={"trials": 4, "steps": STEPS, "evaluations": EPOCHS},
        search={"pruner": "none"},
        space=_SPACES.get(
            name, {"optimizers": ["momentum", "adamw"], "schedules": ["linear", "cosine"]}
        ),
    )
    study = Studies(database).create(spec)
    lines: list[str] = []
    with forgotten("their_scripts"):
        worker = Worker(database, study, torch.device("cpu"), Interruption(), time.time())
        worker.log = lines.append
        worker.run()

    records = read_records(database, study)
    ended = {record.outcome for record in records}
    assert ended <= {Outcome.COMPLETE, Outcome.DIVERGED}, lines
    assert all(record.evaluations for record in records)
    winner = tuner.best(name, database.url)
    assert SCRIPTS[name](ByHand(winner)) == winner.value
