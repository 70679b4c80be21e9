"""Trials of several ranks: real process groups of gloo, each of two processes."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import MakeSpec
from tests.service.worker.contexts import CPU
from tests.service.worker.rank_bureau import Ranks, Told, make_ranks
from tuner.domain.trials import Outcome
from tuner.errors import RankError, RankKilledError, SpecError, WorkloadError
from tuner.search.promotion import PromotionPruner
from tuner.service.worker.ranks import rank_process
from tuner.service.worker.ranks.limits import check_ranks
from tuner.service.worker.ranks.rank_messages import tell_hang, tell_question
from tuner.store import Database
from tuner.training.checkpoint_file import load_checkpoint
from tuner.training.loop import WorkloadLoop
from tuner.training.prepared_workload import PreparedWorkload
from tuner.training.processes.channel import Channel

pytestmark = pytest.mark.slow


@pytest.fixture
def ranks(database: Database, make_spec: MakeSpec, tmp_path: Path) -> Callable[..., Ranks]:
    """Returns a function that makes a bureau of a loop."""

    def make(loop: str = "train", **tables: Any) -> Ranks:
        workload = f"tests.service.worker.ddp:{loop}"
        return make_ranks(database, make_spec, tmp_path, workload, **tables)

    return make


def test_two_ranks_train_as_one_process_does(ranks: Callable[..., Ranks], tmp_path: Path) -> None:
    bureau = ranks()
    record = bureau.run()
    assert (record.outcome, record.attributes["processes"]) == (Outcome.COMPLETE, 2)
    alone = bureau.train_alone(record, tmp_path)
    assert list(record.evaluations) == list(alone) == [5, 10, 15, 20]
    for step, value in alone.items():
        # The same sums in another order: some roundings of float64.
        assert record.evaluations[step] == pytest.approx(value, rel=1e-13)


def test_a_prune_reaches_both_ranks_at_the_same_step(
    ranks: Callable[..., Ranks], short_trials: None
) -> None:
    bureau = ranks(search={"sampler": "random", "pruner": "tests.service.worker.ddp:Strict"})
    record = bureau.run()
    assert (record.outcome, list(record.evaluations)) == (Outcome.PRUNED, [5, 10])
    assert bureau.notes(0) == bureau.notes(1) == ["begins", "reported 4"]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_gives_the_trial_back(ranks: Callable[..., Ranks], rank: int) -> None:
    bureau = ranks()
    bureau.prepare_deed(f"{rank} 12 die")
    with pytest.raises(RankKilledError, match=f"Rank {rank} was killed by SIGKILL"):
        bureau.run()
    record = bureau.run(worker="b")
    assert (record.number, record.outcome) == (0, Outcome.COMPLETE)
    assert list(record.evaluations) == [5, 10, 15, 20]


@pytest.mark.parametrize(
    ("deed", "words"),
    [("raise", "Rank 1: ValueError: the scale is off"), ("exit", r"Rank 1 has ended \(0\)")],
)
def test_a_rank_that_fails_ends_the_trial(
    ranks: Callable[..., Ranks], deed: str, words: str
) -> None:
    bureau = ranks()
    bureau.prepare_deed(f"1 7 {deed}")
    with pytest.raises(RankError, match=words) as caught:
        bureau.run()
    if deed == "raise":
        assert "ddp.py" in caught.value.place
        assert "Traceback" in caught.value.__notes__[0]


def test_ranks_that_ask_differently_are_told(ranks: Callable[..., Ranks]) -> None:
    with pytest.raises(WorkloadError, match=r"come apart \(rank 0 .+, rank 1 suggest width\)"):
        ranks("strays").run()


def test_ranks_that_hang_give_the_trial_back(ranks: Callable[..., Ranks]) -> None:
    bureau = ranks(train={"batch_size": 16, "stall_s": 12})
    bureau.prepare_deed("1 12 sleep")
    with pytest.raises(RankKilledError, match=r"said nothing for 12 s \(train.stall_s\)"):
        bureau.run()


def test_who_waits_for_whom_is_told() -> None:
    error = tell_hang({0: {"do": "suggest"}, 1: None}, 300)
    assert str(error).startswith(
        "Rank 1 has said nothing for 300 s (train.stall_s), while rank 0 is at run.suggest_…"
    )
    assert "Ranks 0 and 1 have said nothing" in str(tell_hang({0: None, 1: None}, 300))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"do": "suggest", "name": "a"}, {"do": "suggest", "name": "b"}),
        ({"do": "report", "step": 3}, {"do": "report", "step": 4}),
        ({"do": "ended"}, {"do": "advance", "step": 4}),
    ],
)
def test_questions_of_ranks_that_have_come_apart_differ(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    assert tell_question(one) == tell_question({**one, "metrics": {}}) != tell_question(other)


def test_steps_that_have_become_slow_are_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_process, "_LIFE_S", 0.0)
    here, there = socket.socketpair()
    with contextlib.closing(Channel(here)) as rank, contextlib.closing(Channel(there)) as worker:
        worker.send({"goes_on": True, "next": 100})
        told = rank_process._ToWorker(rank, rank=1)
        assert [told.advance(step) for step in (1, 2)] == [True, True]
        assert [(worker.receive() or {}).get("do") for _ in range(2)] == ["advance", "alive"]


def test_an_interrupted_trial_goes_on_where_it_was(
    ranks: Callable[..., Ranks], tmp_path: Path
) -> None:
    bureau = ranks(budget={"trials": 20, "steps": 2000, "evaluations": 200})
    record = bureau.run(interruption=Told(bureau.folder() / "notes-0.txt", 30))
    assert record.outcome is Outcome.RUNNING
    assert len(bureau.checkpoints(0)) == 1
    resumed = bureau.run(worker="b")
    assert (resumed.number, resumed.outcome) == (0, Outcome.COMPLETE)
    assert "continues at step" in " ".join(bureau.said)
    assert bureau.notes(0)[1:30] == bureau.notes(1)[1:30]
    for step, value in bureau.train_alone(resumed, tmp_path).items():
        assert resumed.evaluations[step] == pytest.approx(value, rel=1e-8)


def test_a_trial_pauses_with_the_randomness_of_all_ranks(
    ranks: Callable[..., Ranks], monkeypatch: pytest.MonkeyPatch, short_trials: None
) -> None:
    monkeypatch.setattr(PromotionPruner, "_least", 0)
    bureau = ranks(
        search={"pruner": "halving", "sampler": "random", "portfolio": False},
        budget={"trials": 40, "steps": 10, "evaluations": 2},
    )
    record = bureau.run()
    assert (record.outcome, list(record.evaluations)) == (Outcome.RUNNING, [5])
    [waiting] = bureau.context.ledger.read_paused().trials.values()
    assert waiting.step == 5
    [checkpoint] = bureau.checkpoints(0)
    state = load_checkpoint(checkpoint)
    assert state is not None
    assert [list(own) for own in state["ranks"]] == [["rng", "kept"]]


def test_a_sharded_model_trains_and_is_pruned_instead_of_paused(
    ranks: Callable[..., Ranks], monkeypatch: pytest.MonkeyPatch, short_trials: None
) -> None:
    monkeypatch.setattr(PromotionPruner, "_least", 0)
    search = {"pruner": "halving", "sampler": "random", "portfolio": False}
    bureau = ranks("shard", search=search)
    record = bureau.run()
    assert (record.outcome, list(record.evaluations)) == (Outcome.PRUNED, [5])
    assert any("cannot be saved" in line for line in bureau.said)


def test_ranks_that_train_models_of_their_own_are_refused(ranks: Callable[..., Ranks]) -> None:
    with pytest.raises(WorkloadError, match=r"Rank 1 trains another model than rank 0.* step 5,"):
        ranks("alone").run()


def test_a_batch_that_cannot_be_shared_is_refused(ranks: Callable[..., Ranks]) -> None:
    with pytest.raises(WorkloadError, match="2 processes cannot share it equally"):
        ranks(train={"batch_size": 15}).run()


def test_what_ranks_cannot_train_is_refused() -> None:
    prepared = PreparedWorkload.__new__(PreparedWorkload)
    with pytest.raises(SpecError, match="a workload class is trained by one process"):
        check_ranks(WorkloadLoop(prepared), 2, CPU)
    check_ranks(WorkloadLoop(prepared), 1, CPU)
    assert torch.distributed.is_initialized() is False
