from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

from tests.conftest import MakeSpec, away
from tests.service.worker.contexts import Bureau, loop_of, stepped
from tuner.domain.catalog.dimensions import Float, Int
from tuner.domain.states import StudyState
from tuner.domain.trials import Outcome, TrialRecord
from tuner.errors import LeaseLostError
from tuner.service.interruption import Interruption
from tuner.store import Database, Patience, read_curves
from tuner.store.control import ask_to_leave, set_state
from tuner.store.leases.reruns import rerun
from tuner.training.run import Run

MakeBureau = Callable[..., Bureau]

idle = loop_of(lambda run, step: None)


class Killed(BaseException):
    """Leaves a loop as a death of its process would: nothing more is told or saved."""


@pytest.fixture
def make_bureau(database: Database, make_spec: MakeSpec, tmp_path: Path) -> MakeBureau:
    return lambda **tables: Bureau(database, make_spec, tmp_path, **tables)


@pytest.fixture
def bureau(make_bureau: MakeBureau) -> Bureau:
    return make_bureau()


def test_reports_and_costs_of_a_trial_are_recorded(bureau: Bureau) -> None:
    record = bureau.train(idle)
    assert record.outcome is Outcome.COMPLETE
    assert record.evaluations == {5: 4.0, 10: 9.0, 15: 14.0, 20: 19.0}
    assert record.value == 19.0
    assert record.attributes["steps"] == 20
    assert record.attributes["metrics"] == {"val_loss": 19.0}
    assert record.attributes["train_s"] > 0


def test_logged_numbers_that_are_not_finite_are_told_and_left_out(bureau: Bureau) -> None:
    def log(run: Run, step: int) -> None:
        run.log(fine=1.0, odd=float("nan") if step in (3, 9) else 2.0, far=torch.tensor(torch.inf))

    record = bureau.train(loop_of(log))
    assert record.outcome is Outcome.COMPLETE
    curves = read_curves(bureau.database, bureau.study, record.number)
    assert set(curves) == {"fine", "odd", "val_loss"}
    assert len(curves["odd"]) == len(curves["fine"]) - 2
    told = [line for line in bureau.history(record.number) if line.startswith("left_out")]
    assert told == ["left_out: far, odd at step 5: not finite"]
    assert [line for line in bureau.said if "infinite or NaN" in line] == [
        "Trial 0: infinite or NaN numbers are left out of curves: far, odd."
    ]


def test_metric_beside_the_study_s_own_that_is_not_finite_is_told(bureau: Bureau) -> None:
    def loop(run: Run) -> None:
        for _ in stepped(run).steps():
            run.report(val_loss=1.0, accuracy=float("nan"))

    record = bureau.train(loop)
    assert record.attributes["metrics"] == {"val_loss": 1.0}
    assert any(line.startswith("left_out: accuracy") for line in bureau.history(record.number))


def test_what_a_loop_returns_is_its_value(bureau: Bureau) -> None:
    def loop(run: Run) -> float:
        idle(run)
        return 0.125

    record = bureau.train(loop)
    assert (record.value, record.evaluations[20]) == (0.125, 19.0)


def test_a_loop_that_tells_nothing_fails(bureau: Bureau) -> None:
    record = bureau.train(lambda run: None)
    assert record.outcome is Outcome.FAILED
    assert "neither reported nor returned val_loss" in record.attributes["error"]


def test_a_loop_that_returns_no_number_has_diverged(bureau: Bureau) -> None:
    record = bureau.train(lambda run: float("nan"))
    assert (record.outcome, record.value) == (Outcome.DIVERGED, None)


def test_what_is_logged_becomes_a_curve(bureau: Bureau) -> None:
    def log(run: Run, step: int) -> None:
        run.log(twice=torch.tensor(2.0 * step))

    record = bureau.train(loop_of(log))
    curves = read_curves(bureau.database, bureau.study, record.number)
    assert curves["twice"] == {step + 1: 2.0 * step for step in range(20)}
    assert curves["val_loss"] == {5: 4.0, 10: 9.0, 15: 14.0, 20: 19.0}


def test_what_was_logged_before_an_interruption_is_kept(bureau: Bureau) -> None:
    loop = loop_of(lambda run, step: run.log(step=step))
    bureau.train(loop, stop_after=7)
    record = bureau.train(loop)
    curves = read_curves(bureau.database, bureau.study, record.number)
    assert list(curves["step"]) == list(range(1, 21))


def test_an_interrupted_loop_goes_on_with_what_it_had(bureau: Bureau) -> None:
    seen: list[int] = []
    loop = loop_of(lambda run, step: seen.append(step))
    stopped = bureau.train(loop, stop_after=7)
    assert stopped.outcome is Outcome.RUNNING
    assert len(bureau.checkpoints(0)) == 1
    record = bureau.train(loop)
    assert seen == list(range(20))
    assert record.evaluations == {5: 4.0, 10: 9.0, 15: 14.0, 20: 19.0}
    assert not bureau.checkpoints(0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_trial_when_the_step_is_over(
    bureau: Bureau, number: signal.Signals
) -> None:
    def press(run: Run, step: int) -> None:
        if step == 6:
            os.kill(os.getpid(), number)

    with Interruption() as interruption:
        stopped = bureau.train(loop_of(press), interruption=interruption)
    assert (stopped.outcome, stopped.evaluations) == (Outcome.RUNNING, {5: 4.0})
    assert bureau.said[-1] == "Trial 0 saved and released"
    assert bureau.train(idle).evaluations == {5: 4.0, 10: 9.0, 15: 14.0, 20: 19.0}
    assert bureau.said[-2] == "Trial 0 continues at step 7"
    assert bureau.history(0) == ["started", "released", "continued: at step 7"]


def test_a_loop_that_counts_its_own_steps_starts_over(bureau: Bureau) -> None:
    seen: list[int] = []

    def loop(run: Run) -> None:
        optimizer = run.optimizer(torch.nn.Linear(1, 1))
        for step in range(20):
            seen.append(step)
            optimizer.step()
            run.report(step, val_loss=float(step))

    stopped = bureau.train(loop, stop_after=8)
    assert (stopped.outcome, stopped.evaluations) == (Outcome.RUNNING, {5: 4.0})
    assert bureau.said[-1].startswith("Trial 0 released, to start over: only what goes over run.s")
    record = bureau.train(loop)
    assert seen == [*range(8), *range(20)]
    assert (record.outcome, record.attributes["steps"]) == (Outcome.COMPLETE, 20)
    assert bureau.said[-2] == "Trial 0 starts over: nothing had been saved of it"
    assert bureau.history(0) == [
        "started",
        "released",
        "started_over: nothing had been saved of it",
    ]


def test_a_checkpoint_on_demand_lies_on_disk_after_the_step(bureau: Bureau) -> None:
    there: list[bool] = []

    def ask(run: Run, step: int) -> None:
        there.append(bool(bureau.checkpoints(0)))
        if step == 3:
            run.checkpoint()

    bureau.train(loop_of(ask))
    assert there == [False] * 4 + [True] * 16


def test_costs_are_told_also_of_a_loop_that_never_knew_its_epochs(make_bureau: MakeBureau) -> None:
    bureau = make_bureau(train={"batch_size": 32, "schedule_by": "epoch"})
    record = bureau.train(lambda run: stepped(run) and 0.5)
    assert (record.outcome, record.value) == (Outcome.COMPLETE, 0.5)
    assert "epoch_steps" not in record.attributes


def test_effective_groups_are_recorded(make_bureau: MakeBureau) -> None:
    group = {"name": "slope", "match": "weight", "lr_multiplier": 0.5, "frozen_until": 0.5}
    bureau = make_bureau(train={"batch_size": 32, "groups": [group]})
    groups = bureau.train(idle).attributes["groups"]
    shown = {group["name"]: (group["parameters"], group["frozen_until"]) for group in groups}
    assert shown == {"slope": (2, 0.5), "rest": (1, 0.0)}
    rates = {group["name"]: group["lr"] for group in groups}
    assert rates["slope"] == pytest.approx(rates["rest"] / 2)


def stop_everything() -> optuna.pruners.BasePruner:
    return optuna.pruners.ThresholdPruner(upper=-1.0)


@pytest.mark.parametrize(("steps", "outcome"), [(1, Outcome.COMPLETE), (20, Outcome.PRUNED)])
def test_a_trial_at_its_last_step_is_not_pruned(
    make_bureau: MakeBureau, steps: int, outcome: Outcome
) -> None:
    bureau = make_bureau(
        budget={"trials": 3, "steps": steps, "evaluations": 10},
        search={"pruner": f"{__name__}:stop_everything"},
    )
    assert bureau.train(idle).outcome is outcome


class TestOwnHyperparameters:
    def test_they_are_stored_with_where_they_were_searched(self, bureau: Bureau) -> None:
        def loop(run: Run) -> float:
            stepped(run)
            return run.suggest_float("width", 0.5, 2.0, log=True) + run.suggest_int("depth", 1, 3)

        for _ in range(3):
            record = bureau.train(loop)
            width, depth = record.proposal.params["width"], record.proposal.params["depth"]
            assert record.value == pytest.approx(float(width) + float(depth))
            assert record.own_axes == {
                "width": Float(low=0.5, high=2.0, log=True),
                "depth": Int(low=1, high=3),
            }

    def test_they_are_drawn_anew_for_every_trial(self, bureau: Bureau) -> None:
        drawn = [
            bureau.train(lambda run: stepped(run).suggest_float("width", 0, 1)).value
            for _ in range(4)
        ]
        assert len(set(drawn)) == 4

    def test_a_trial_of_an_earlier_study_has_those_it_had_there_if_asked_alike(
        self, make_bureau: MakeBureau
    ) -> None:
        def loop(run: Run) -> float:
            stepped(run)
            return run.suggest_float("width", 0.5, 2.0, log=True) + run.suggest_int("depth", 1, 3)

        params = {"optimizer": "adam", "schedule": "constant", "adam.lr": 0.05}
        own = {
            "width": {"value": 1.75, "axis": {"low": 0.5, "high": 2.0, "log": True}},
            "depth": {"value": 9, "axis": {"low": 1, "high": 9}},
            "gone": {"value": 1, "axis": {"choices": [1, 2]}},
        }
        opening = {"params": params, "own": own}
        start = {"study": "earlier", "trials": 9, "value": 0.5, "openings": [opening]}
        bureau = make_bureau(warm_start=start, search={"portfolio": False})
        record = bureau.train(loop)
        assert record.proposal.preset == "warm_start"
        point = record.proposal.params
        assert {name: point[name] for name in params} == params
        assert point["width"] == 1.75
        assert 1 <= int(point["depth"]) <= 3
        assert record.own_axes["depth"] == Int(low=1, high=3)
        assert point.keys() == {*params, "width", "depth"}
        later = bureau.train(loop)
        assert later.proposal.preset is None
        assert later.proposal.params["width"] != 1.75

    def test_a_rerun_trains_with_those_of_its_model(self, bureau: Bureau) -> None:
        def loop(run: Run) -> float:
            return stepped(run).suggest_float("width", 0.5, 2.0, log=True)

        first = bureau.train(loop)
        bureau.train(loop)
        number = rerun(bureau.database, bureau.study, first.number)
        again = bureau.train(loop)
        assert (again.number, again.value) == (number, first.value)

    def test_an_interrupted_trial_keeps_its_own(self, bureau: Bureau) -> None:
        drawn: list[float] = []
        loop = loop_of(lambda run, step: drawn.append(run.suggest_float("width", 0, 1)))
        bureau.train(loop, stop_after=7)
        [path] = bureau.checkpoints(0)
        path.unlink()  # they do not depend on the checkpoint
        bureau.train(loop)
        assert len(drawn) == 28
        assert len(set(drawn)) == 1


@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_a_checkpoint_that_cannot_be_used_starts_the_trial_over(
    bureau: Bureau, damage: str
) -> None:
    seen: list[int] = []
    loop = loop_of(lambda run, step: seen.append(step))
    bureau.train(loop, stop_after=7)
    [path] = bureau.checkpoints(0)
    if damage == "other":
        state = torch.load(path, weights_only=True)
        torch.save(state | {"seed": 12345}, path)
    else:
        path.write_bytes(path.read_bytes()[:100] if damage == "cut" else b"")
    record = bureau.train(loop)
    assert seen == [*range(8), *range(20)]
    assert list(record.evaluations) == [5, 10, 15, 20]
    [told] = [line for line in bureau.said if "starts over" in line]
    reason = told.removeprefix("Trial 0 starts over: ")
    assert bureau.history(0) == ["started", "released", f"started_over: {reason}"]
    assert not any("continues" in line for line in bureau.said)


class TestDatabaseAway:
    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url

    @pytest.mark.parametrize(("leaves", "returns"), [(3, 8), (3, 17), (12, 19)])
    def test_training_goes_on_and_reports_are_delivered(
        self, bureau: Bureau, postgres_server: str, leaves: int, returns: int
    ) -> None:
        stack = contextlib.ExitStack()

        def come_and_go(run: Run, step: int) -> None:
            run.log(step=step)
            if step == leaves:
                stack.enter_context(away(postgres_server, bureau.database.url))
            if step == returns:
                stack.close()

        record = bureau.train(loop_of(come_and_go))
        assert record.outcome is Outcome.COMPLETE
        assert record.evaluations == {5: 4.0, 10: 9.0, 15: 14.0, 20: 19.0}
        curves = read_curves(bureau.database, bureau.study, record.number)
        assert curves["step"] == {step + 1: step for step in range(20)}
        assert any("the database is away; training goes on" in line for line in bureau.said)

    @pytest.mark.parametrize("stop_after", [3, 10**9])
    def test_nobody_hangs_who_waits_to_tell_the_end(
        self, bureau: Bureau, postgres_server: str, stop_after: int
    ) -> None:
        stack = contextlib.ExitStack()
        verdicts: list[str | None] = []
        watchdog = bureau.context.watchdog

        def wait(seconds: float) -> bool:
            verdicts.append(watchdog.judge(time.monotonic() + 1e6))
            stack.close()
            return False

        def leave(run: Run, step: int) -> None:
            assert watchdog.judge(time.monotonic() + 1e6) is not None
            if step == 2:
                stack.enter_context(away(postgres_server, bureau.database.url))

        bureau.context.patience = Patience(limit_s=60.0, wait=wait, seed=0)
        bureau.train(loop_of(leave), stop_after=stop_after)
        assert verdicts == [None]

    def test_own_hyperparameters_drawn_meanwhile_are_delivered(
        self, bureau: Bureau, postgres_server: str
    ) -> None:
        def loop(run: Run) -> Any:
            with away(postgres_server, bureau.database.url):
                return stepped(run).suggest_float("width", 0, 1)

        record = bureau.train(loop)
        assert record.proposal.params["width"] == record.value

    def test_reports_not_delivered_outlive_the_worker_in_its_checkpoint(
        self, bureau: Bureau, postgres_server: str
    ) -> None:
        stack = contextlib.ExitStack()

        def die(run: Run, step: int) -> None:
            run.log(step=step)
            if step in (2, 12):
                run.checkpoint()
            if step == 4:
                stack.enter_context(away(postgres_server, bureau.database.url))
            if step == 16:
                raise Killed

        with pytest.raises(Killed):
            bureau.train(loop_of(die))
        stack.close()
        record = bureau.train(loop_of(lambda run, step: run.log(step=step)), worker="b")
        assert bureau.said[-2] == "Trial 0 continues at step 13"
        assert record.evaluations == {5: 4.0, 10: 9.0, 15: 14.0, 20: 19.0}
        curves = read_curves(bureau.database, bureau.study, record.number)
        assert curves["step"] == {step + 1: step for step in range(20)}


def test_a_holder_that_lost_its_trial_writes_nothing_that_counts(bureau: Bureau) -> None:
    taken: list[TrialRecord] = []

    def lose(run: Run, step: int) -> None:
        if step == 2:
            run.checkpoint()
        if step == 6 and not taken:
            # It hung for so long that another has taken over, gone on, and been interrupted.
            taken.append(bureau.train(idle, worker="b", stop_after=8))
            run.checkpoint()

    with pytest.raises(LeaseLostError):
        bureau.train(loop_of(lose))
    assert bureau.said[:2] == ["Trial 0 continues at step 3", "Trial 0 saved and released"]
    assert len(bureau.checkpoints(0)) == 1
    record = bureau.train(idle, worker="c")
    assert bureau.said[-2] == "Trial 0 continues at step 12"
    assert record.evaluations == {5: 4.0, 10: 9.0, 15: 14.0, 20: 19.0}
    assert not bureau.checkpoints(0)


class TestOrders:
    @pytest.fixture(autouse=True)
    def look_at_every_report(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tuner.service.worker.task.LOOK_AT_REPORTS_S", -1.0)

    def obeyed(self, bureau: Bureau, give: Callable[[], object]) -> tuple[TrialRecord, list[int]]:
        """Returns what became of a trial in which an order is given at the third step."""
        seen: list[int] = []

        def loop_body(run: Run, step: int) -> None:
            seen.append(step)
            if step == 2:
                give()

        return bureau.train(loop_of(loop_body), interruption=Interruption()), seen

    def test_trial_of_a_paused_study_is_saved_and_given_back(self, bureau: Bureau) -> None:
        record, seen = self.obeyed(
            bureau, lambda: set_state(bureau.database, bureau.study, StudyState.PAUSED)
        )
        assert (record.outcome, len(seen)) == (Outcome.RUNNING, 5)
        assert bureau.said[-1] == "Trial 0 saved and released"
        set_state(bureau.database, bureau.study, StudyState.RUNNING)
        assert bureau.train(idle).evaluations == {5: 4.0, 10: 9.0, 15: 14.0, 20: 19.0}

    def test_trial_of_a_stopped_study_ends_with_what_it_has(self, bureau: Bureau) -> None:
        record, seen = self.obeyed(
            bureau, lambda: set_state(bureau.database, bureau.study, StudyState.STOPPED)
        )
        assert (record.outcome, len(seen)) == (Outcome.PRUNED, 5)
        assert (record.value, record.attributes["stopped_by"]) == (4.0, "stop")
        assert not bureau.checkpoints(0)

    def test_worker_asked_to_leave_gives_its_trial_back(self, bureau: Bureau) -> None:
        record, seen = self.obeyed(
            bureau, lambda: ask_to_leave(bureau.database, bureau.study, None)
        )
        assert (record.outcome, len(seen)) == (Outcome.RUNNING, 5)
        assert bureau.train(idle, worker="b").outcome is Outcome.COMPLETE
