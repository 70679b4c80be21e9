"""Trials of own loops that are paused, promoted, lost on the way, or cannot be saved."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch

from tests.conftest import MakeSpec, away
from tests.service.worker.contexts import Bureau, loop_of
from tuner.domain.states import StudyState
from tuner.domain.trials import Outcome
from tuner.errors import StorageError
from tuner.search.promotion import PromotionPruner
from tuner.service.interruption import Interruption
from tuner.service.worker.checkpoints import Checkpoints
from tuner.store import Database, Patience
from tuner.store.control import set_state
from tuner.training.run import Run

pytestmark = pytest.mark.usefixtures("short_trials")

FULL = {5: 4.0, 10: 9.0}

idle = loop_of(lambda run, step: None)


class Killed(BaseException):
    """Leaves a loop as a death of its process would: nothing more is told or saved."""


@pytest.fixture(autouse=True)
def _even_the_best_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PromotionPruner, "_least", 0)


@pytest.fixture
def bureau(database: Database, make_spec: MakeSpec, tmp_path: Path) -> Bureau:
    return make_bureau(database, make_spec, tmp_path)


def make_bureau(database: Database, make_spec: MakeSpec, folder: Path) -> Bureau:
    """Returns a bureau whose trials all pause at their first of two evaluations."""
    space = {"optimizers": ["sgd"], "schedules": ["constant"]}
    search = {"pruner": "halving", "sampler": "random", "portfolio": False}
    budget = {"trials": 40, "steps": 10, "evaluations": 2}
    return Bureau(database, make_spec, folder, search=search, space=space, budget=budget)


def test_a_trial_at_a_rung_is_saved_and_given_up(bureau: Bureau) -> None:
    seen: list[int] = []
    record = bureau.train(loop_of(lambda run, step: seen.append(step)))
    assert (record.outcome, record.evaluations) == (Outcome.RUNNING, {5: 4.0})
    assert seen == list(range(5))
    assert bureau.said == ["Trial 0 paused: val_loss 4"]
    assert bureau.history(0) == ["started", "paused: at step 5"]
    assert len(bureau.checkpoints(0)) == 1
    [waiting] = bureau.context.ledger.read_paused().trials.values()
    assert (waiting.step, waiting.progress) == (5, 5)


def test_a_promoted_trial_goes_on_where_it_paused(bureau: Bureau) -> None:
    seen: list[tuple[int, int]] = []
    now = [0]

    def note(run: Run, step: int) -> None:
        seen.append((now[0], step))

    for now[0] in range(3):
        bureau.train(loop_of(note))
    # The third is level with the others, so that all of them go on.
    assert [step for number, step in seen if number == 2] == list(range(10))
    now[0] = 0
    record = bureau.train(loop_of(note), worker="b")
    assert (record.number, record.outcome) == (0, Outcome.COMPLETE)
    assert record.evaluations == FULL
    assert [step for number, step in seen if number == 0] == list(range(10))
    assert bureau.history(0)[1:] == [
        *("paused: at step 5", "promoted: at step 5", "continued: at step 5")
    ]
    assert not bureau.checkpoints(0)


def test_a_promoted_trial_whose_worker_died_is_taken_over_as_any_other(bureau: Bureau) -> None:
    def die(run: Run, step: int) -> None:
        if step == 7:
            raise Killed

    for _ in range(3):
        bureau.train(idle)
    with pytest.raises(Killed):
        bureau.train(loop_of(die))
    seen: list[int] = []
    record = bureau.train(loop_of(lambda run, step: seen.append(step)), worker="b")
    assert (record.number, record.outcome, record.evaluations) == (0, Outcome.COMPLETE, FULL)
    assert seen == list(range(5, 10))
    assert bureau.history(0)[-2:] == [
        "taken_over: attempt 2, at step 5",
        "continued: at step 5",
    ]


def test_a_trial_that_counts_its_own_steps_is_pruned_instead(bureau: Bureau) -> None:
    def loop(run: Run) -> None:
        optimizer = run.optimizer(torch.nn.Linear(1, 1))
        for step in range(10):
            optimizer.step()
            run.report(step, val_loss=float(step))

    record = bureau.train(loop)
    assert (record.outcome, record.value, record.evaluations) == (Outcome.PRUNED, 4.0, {5: 4.0})
    assert bureau.said == [
        "Trial 0 cannot be saved, so it is pruned instead of paused",
        "Trial 0 pruned: val_loss 4",
    ]
    assert not bureau.context.ledger.read_paused().trials


def test_a_trial_is_pruned_instead_if_its_checkpoint_cannot_be_written(
    bureau: Bureau, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Checkpoints, state: object) -> None:
        raise StorageError("no space left on device")

    monkeypatch.setattr(Checkpoints, "save", refuse)
    record = bureau.train(idle)
    assert (record.outcome, record.value) == (Outcome.PRUNED, 4.0)
    assert bureau.said == [
        "Trial 0: no space left on device",
        "Trial 0 cannot be saved, so it is pruned instead of paused",
        "Trial 0 pruned: val_loss 4",
    ]


def test_a_trial_whose_loop_returns_at_the_rung_is_complete(bureau: Bureau) -> None:
    def brief(run: Run) -> float:
        optimizer = run.optimizer(torch.nn.Linear(1, 1))
        for step in run.steps():
            optimizer.step()
            run.report(val_loss=float(step))
            if run.state.evaluated:
                break
        return 4.0

    assert bureau.train(brief).outcome is Outcome.COMPLETE
    assert not bureau.context.ledger.read_paused().trials


def test_a_trial_at_a_rung_is_paused_although_its_worker_is_asked_to_leave(bureau: Bureau) -> None:
    interruption = Interruption()

    def ask(run: Run, step: int) -> None:
        if step == 4:
            interruption.request()

    bureau.train(loop_of(ask), interruption=interruption)
    assert bureau.history(0) == ["started", "paused: at step 5"]


def test_a_trial_at_a_rung_of_a_stopped_study_ends(bureau: Bureau) -> None:
    def stop(run: Run, step: int) -> None:
        if step == 4:
            set_state(bureau.database, bureau.study, StudyState.STOPPED)
            bureau.context._looked_at = float("-inf")  # as if some seconds had passed

    record = bureau.train(loop_of(stop))
    assert (record.outcome, record.attributes["stopped_by"]) == (Outcome.PRUNED, "stop")
    assert not bureau.context.ledger.read_paused().trials


def test_a_trial_whose_lease_is_lost_at_the_rung_is_left_to_the_other_worker(
    bureau: Bureau,
) -> None:
    def steal(run: Run, step: int) -> None:
        if step == 4:
            bureau.train(loop_of(lambda run, step: None), worker="b")

    with pytest.raises(Exception, match="belongs to another worker"):
        bureau.train(loop_of(steal))
    assert bureau.history(0).count("paused: at step 5") == 1


class TestWhileTheDatabaseIsAway:
    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url

    def test_nobody_pauses(self, bureau: Bureau, postgres_server: str) -> None:
        stack = contextlib.ExitStack()

        def come_and_go(run: Run, step: int) -> None:
            if step == 3:
                stack.enter_context(away(postgres_server, bureau.database.url))
            if step == 8:
                stack.close()

        record = bureau.train(loop_of(come_and_go))
        assert (record.outcome, record.evaluations) == (Outcome.COMPLETE, FULL)

    def test_a_pause_under_way_is_delivered_once_it_is_back(
        self, bureau: Bureau, postgres_server: str
    ) -> None:
        stack = contextlib.ExitStack()

        def loop(run: Run) -> None:
            optimizer = run.optimizer(torch.nn.Linear(1, 1))
            for step in run.steps():
                optimizer.step()
                run.report(val_loss=float(step))
                if step == 4:
                    stack.enter_context(away(postgres_server, bureau.database.url))

        def wait(seconds: float) -> bool:
            assert bureau.said == []
            stack.close()
            return False

        bureau.context.patience = Patience(limit_s=60.0, wait=wait, seed=0)
        record = bureau.train(loop)
        assert (record.outcome, record.evaluations) == (Outcome.RUNNING, {5: 4.0})
        assert bureau.history(0) == ["started", "paused: at step 5"]
        assert bureau.said == ["Trial 0 paused: val_loss 4"]


def test_a_trial_that_cannot_go_on_from_its_checkpoint_pauses_once_only(bureau: Bureau) -> None:
    for _ in range(3):
        bureau.train(idle)
    [waiting, _] = bureau.context.ledger.read_paused().trials
    for path in bureau.checkpoints(waiting):
        path.write_bytes(b"nothing that can be read")
    bureau.train(idle)
    others = [bureau.train(loop_of(lambda run, step: None)) for _ in range(2)]
    assert bureau.history(waiting).count("paused: at step 5") == 1
    assert any(event.startswith("started_over") for event in bureau.history(waiting))
    assert {record.outcome for record in others} <= {Outcome.COMPLETE, Outcome.RUNNING}
