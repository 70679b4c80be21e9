"""Trials of several ranks: real process groups of gloo, each of two processes."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import MakeSpec
from tests.service.worker import ddp
from tests.service.worker.contexts import CPU, Bureau
from tuner.domain.trials import Outcome, TrialRecord, decode
from tuner.errors import RankError, RankKilledError, SpecError, WorkloadError
from tuner.search.promotion import PromotionPruner
from tuner.service.interruption import Interruption
from tuner.service.worker.ranks import rank_process
from tuner.service.worker.ranks.limits import check_ranks
from tuner.service.worker.ranks.rank_lane import RankSetup, start_ranks
from tuner.service.worker.ranks.rank_messages import tell_hang, tell_question
from tuner.service.worker.starts import Start
from tuner.store import Database
from tuner.training.checkpoint_file import load_checkpoint
from tuner.training.loop import WorkloadLoop, run_trial
from tuner.training.place import Place
from tuner.training.prepared_workload import PreparedWorkload
from tuner.training.processes.channel import Channel
from tuner.training.rehearsal import Rehearsal, prepare
from tuner.training.reporting import Evaluation
from tuner.training.run import Run

pytestmark = pytest.mark.slow


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


@pytest.fixture
def ranks(database: Database, make_spec: MakeSpec, tmp_path: Path) -> Callable[..., Ranks]:
    """Returns a function that makes a bureau of a loop."""

    def make(loop: str = "train", **tables: Any) -> Ranks:
        given: dict[str, Any] = {
            "study": {"name": "small", "workload": f"tests.service.worker.ddp:{loop}"},
            "budget": {"trials": 20, "steps": 20, "evaluations": 4},
            "space": {"optimizers": ["adam"], "schedules": ["cosine"], "breadth": 1},
            # One configuration, so that trials can be compared.
            "optimizer": {"adam": {"lr": 0.01}},
            "schedule": {"cosine": {"warmup": 0.1, "final_ratio": 0.01}},
            "search": {"sampler": "random", "portfolio": False, "pruner": "none"},
            "train": {"batch_size": 16, "checkpoint_s": 0.1},
        }
        return Ranks(database, make_spec, tmp_path / "study", **(given | tables))

    return make


class Recorder(Rehearsal):
    """Keeps all evaluations by step."""

    def __init__(self) -> None:
        super().__init__()
        self.evaluations: dict[int, float] = {}

    def report(self, evaluations: Sequence[Evaluation | None]) -> Sequence[bool]:
        for evaluation in evaluations:
            assert evaluation is not None
            self.evaluations[evaluation.step] = evaluation.metrics["val_loss"]
        return [True]


def train_alone(bureau: Ranks, record: TrialRecord, folder: Path) -> dict[int, float]:
    """Trains a trial's configuration in this process; returns its evaluations."""
    recorder, spec = Recorder(), bureau.study.spec
    config, place = decode(spec, record.proposal), Place("alone", 0, folder)
    run_trial(ddp.train, Run(spec, config, device=CPU, reporter=recorder, place=place))
    return recorder.evaluations


def test_two_ranks_train_as_one_process_does(ranks: Callable[..., Ranks], tmp_path: Path) -> None:
    bureau = ranks()
    record = bureau.run()
    assert (record.outcome, record.attributes["processes"]) == (Outcome.COMPLETE, 2)
    alone = train_alone(bureau, record, tmp_path)
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
    for step, value in train_alone(bureau, resumed, tmp_path).items():
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
    assert len(state["rngs"]) == 1


def test_a_sharded_model_trains_and_is_pruned_instead_of_paused(
    ranks: Callable[..., Ranks], monkeypatch: pytest.MonkeyPatch, short_trials: None
) -> None:
    monkeypatch.setattr(PromotionPruner, "_least", 0)
    search = {"pruner": "halving", "sampler": "random", "portfolio": False}
    bureau = ranks("shard", search=search)
    record = bureau.run()
    assert (record.outcome, list(record.evaluations)) == (Outcome.PRUNED, [5])
    assert any("cannot be saved" in line for line in bureau.said)


def test_a_batch_that_cannot_be_shared_is_refused(ranks: Callable[..., Ranks]) -> None:
    with pytest.raises(WorkloadError, match="2 processes cannot share it equally"):
        ranks(train={"batch_size": 15}).run()


def test_what_ranks_cannot_train_is_refused() -> None:
    prepared = PreparedWorkload.__new__(PreparedWorkload)
    with pytest.raises(SpecError, match="a workload class is trained by one process"):
        check_ranks(WorkloadLoop(prepared), 2, CPU)
    check_ranks(WorkloadLoop(prepared), 1, CPU)
    assert torch.distributed.is_initialized() is False
