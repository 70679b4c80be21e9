"""Trainers on several processes: real process groups of gloo, each of two processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from tests.conftest import MakeSpec
from tests.service.worker.rank_bureau import Ranks, Told, make_ranks
from tuner.domain.trials import Outcome
from tuner.errors import RankError, WorkloadError
from tuner.store import Database
from tuner.training.ranks import Ranks as RanksOfATrial

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore:.*does not have many workers",
        "ignore:.*LeafSpec",
        "ignore:The number of training batches",
    ),
]

RANDOM = {"sampler": "random", "portfolio": False}
LONG = {"trials": 20, "steps": 120, "evaluations": 24}


@pytest.fixture
def ranks(database: Database, make_spec: MakeSpec, tmp_path: Path) -> Callable[..., Ranks]:
    """Returns a function that makes a bureau of a trainer."""

    def make(loop: str, name: str = "small", **tables: Any) -> Ranks:
        metric = "eval_loss" if loop.startswith("transformers") else "val_loss"
        workload = f"tests.integrations.together:{loop}"
        tables = {"study": {"name": name, "workload": workload, "metric": metric}} | tables
        return make_ranks(database, make_spec, tmp_path / name, workload, **tables)

    return make


@pytest.mark.parametrize("trainer", ["accelerated", "lightning", "transformers"])
def test_two_ranks_train_as_one_process_does(
    trainer: str, ranks: Callable[..., Ranks], tmp_path: Path
) -> None:
    bureau = ranks(trainer)
    record = bureau.run()
    assert (record.outcome, record.attributes["processes"]) == (Outcome.COMPLETE, 2)
    alone = bureau.train_alone(record, tmp_path)
    assert list(record.evaluations) == list(alone) == [5, 10, 15, 20]
    for step, value in alone.items():
        assert record.evaluations[step] == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("trainer", ["lightning", "transformers"])
def test_a_prune_reaches_both_ranks_at_the_same_step(
    trainer: str, ranks: Callable[..., Ranks], short_trials: None
) -> None:
    bureau = ranks(trainer, search={"pruner": "tests.service.worker.ddp:Strict"} | RANDOM)
    record = bureau.run()
    assert (record.outcome, list(record.evaluations)) == (Outcome.PRUNED, [5, 10])
    assert bureau.notes(0)[:2] == bureau.notes(1)[:2] == ["begins", "reported 4"]


@pytest.mark.parametrize(
    "trainer", ["accelerated", "lightning_with_dropout", "transformers_with_dropout"]
)
def test_an_interrupted_trial_goes_on_as_if_never_stopped(
    trainer: str, ranks: Callable[..., Ranks], tmp_path: Path
) -> None:
    whole, stopped = ranks(trainer, budget=LONG), ranks(trainer, "stopped", budget=LONG)
    expected = whole.run()
    record = stopped.run(interruption=Told(stopped.folder() / "notes-0.txt", 4))
    assert record.outcome is Outcome.RUNNING
    assert len(stopped.checkpoints(0)) == 1
    resumed = stopped.run(worker="b")
    assert "continues at step" in " ".join(stopped.said)
    assert (resumed.number, resumed.outcome) == (0, Outcome.COMPLETE)
    assert resumed.evaluations == expected.evaluations


@pytest.mark.parametrize(
    ("trainer", "remedy"),
    [
        ("lightning_apart", r"give it devices=run.world_size, strategy=.ddp"),
        ("transformers_apart", r"give its arguments use_cpu=True"),
    ],
)
def test_a_trainer_that_trains_by_itself_is_refused(
    trainer: str, remedy: str, ranks: Callable[..., Ranks]
) -> None:
    with pytest.raises(RankError, match=remedy):
        ranks(trainer).run()


def test_a_loader_of_an_accelerator_that_knows_of_no_ranks_is_refused() -> None:
    from accelerate import Accelerator

    loader = Accelerator(cpu=True).prepare(DataLoader([1, 2]))  # type: ignore[arg-type]
    assert RanksOfATrial().share(loader) is loader
    with pytest.raises(WorkloadError, match=r"2 processes train this trial, but .* knows of 1"):
        RanksOfATrial(0, 2).share(loader)
