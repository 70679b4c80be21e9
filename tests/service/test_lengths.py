"""What is recorded of loops that train otherwise than their budget says, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tuner
from tests.conftest import MakeSpec
from tests.service.worker.contexts import Bureau, loop_of
from tuner.domain.trials import Outcome
from tuner.errors import WorkloadError
from tuner.report.code import to_python
from tuner.report.conclusion import conclude
from tuner.report.json import to_json
from tuner.report.tables import apart, best_tables
from tuner.service.summaries import read_summary
from tuner.store import Database, Studies
from tuner.training.run import Run

MakeBureau = Callable[..., Bureau]
Report = Callable[[Run, int, float], None]


@pytest.fixture
def make_bureau(database: Database, make_spec: MakeSpec, tmp_path: Path) -> MakeBureau:
    return lambda **tables: Bureau(database, make_spec, tmp_path, **tables)


@pytest.fixture
def bureau(make_bureau: MakeBureau) -> Bureau:
    return make_bureau()


def counting(steps: int, value: float = 0.5) -> Callable[[Run], float]:
    """Returns a loop with a number of steps of its own."""

    def loop(run: Run) -> float:
        optimizer = run.optimizer(nn.Linear(1, 1))
        for step in range(steps):
            optimizer.step()
            run.report(step, val_loss=value + 1)
        return value

    return loop


def ending_at(step: int, why: str | None = None, value: float = 0.5) -> Callable[[Run], float]:
    """Returns a loop that breaks out of its run's steps."""

    def loop(run: Run) -> float:
        optimizer = run.optimizer(nn.Linear(1, 1))
        for number in run.steps():
            optimizer.step()
            if number == step:
                if why is not None:
                    run.stop(why)
                break
        return value

    return loop


# How long it trained.


@pytest.mark.parametrize(
    ("loop", "told"),
    [
        (counting(12), "trained 12 of 20 steps"),
        (counting(60), "trained 60 of 20 steps"),
        (ending_at(7), "trained 8 of 20 steps"),
        (ending_at(7, "no gain"), "its loop stopped after 8 of 20 steps: no gain"),
    ],
)
def test_another_length_is_told_in_the_log(bureau: Bureau, loop: Any, told: str) -> None:
    assert bureau.train(loop).outcome is Outcome.COMPLETE
    assert bureau.said[-1] == f"Trial 0 complete: val_loss 0.5; {told}"


@pytest.mark.parametrize("loop", [counting(20), loop_of(lambda run, step: None)])
def test_nothing_is_said_of_a_full_length(bureau: Bureau, loop: Any) -> None:
    bureau.train(loop)
    assert "trained" not in bureau.said[-1]
    summary = read_summary(bureau.database, bureau.study)
    assert "trained as long" not in " ".join(conclude(summary))


def test_trials_of_another_length_are_ranked_apart(bureau: Bureau) -> None:
    for loop in (counting(12, 0.1), counting(20, 0.4), counting(60, 0.2), counting(20, 0.3)):
        bureau.train(loop)
    summary = read_summary(bureau.database, bureau.study)
    assert summary.best is not None
    assert summary.best.record.number == 3
    best = [row.best_value for row in summary.optimizers]
    assert best[0] == 0.3
    assert set(best) <= {0.3, 0.4, None}  # whichever optimizers they were of
    assert [record.number for record in summary.apart] == [0, 2]
    assert apart(summary) in best_tables(summary)
    assert [row[0::3] for row in apart(summary).rows] == [
        ("0", "12 of 20 steps"),
        ("2", "60 of 20 steps"),
    ]
    assert "2 more have trained for longer or shorter" in " ".join(conclude(summary))
    assert [told["steps"] for told in to_json(summary)["apart"]] == [12, 60]
    assert tuner.best("small", bureau.database.url).trial == 3
    assert Studies(bureau.database).list()[0].best_value == 0.3


def test_a_script_s_own_number_of_steps_is_ranked_where_all_have_it(bureau: Bureau) -> None:
    for value in (0.4, 0.2, 0.3):
        bureau.train(counting(12, value))
    bureau.train(ending_at(15, value=0.1))
    summary = read_summary(bureau.database, bureau.study)
    assert tuner.best("small", bureau.database.url).value == 0.2
    assert Studies(bureau.database).list()[0].best_value == 0.2
    said = [line for line in conclude(summary) if "as long as [budget] says" in line]
    assert len(said) == 1
    assert "those that trained 12 of 20 steps" in said[0]
    assert "# It trained 12 of 20 steps of a full trial." in to_python(summary)
    assert [record.number for record in summary.apart] == [3]


def test_a_loop_that_stops_by_itself_is_ranked_with_full_trials(bureau: Bureau) -> None:
    bureau.train(counting(20, 0.4))
    record = bureau.train(ending_at(7, "no gain\nfor 5 evaluations", 0.3))
    assert record.attributes["stopped_early"] == "no gain\nfor 5 evaluations"
    summary = read_summary(bureau.database, bureau.study)
    assert summary.best is not None
    assert summary.best.record.number == 1
    assert summary.apart == ()
    assert "1 trial ended early by the loop's own decision (no gain" in " ".join(conclude(summary))
    [told] = to_json(summary)["stopped_early"]
    assert (told["trial"], told["steps"], told["total_steps"]) == (1, 8, 20)
    # What a user wrote cannot become code.
    assert "# 'no gain\\nfor 5 evaluations'" in to_python(summary)


def test_steps_end_by_themselves_after_a_stop(bureau: Bureau) -> None:
    seen: list[int] = []

    def at_step(run: Run, step: int) -> None:
        seen.append(step)
        if step == 7:
            run.stop("good enough")

    record = bureau.train(loop_of(at_step))
    assert seen == [*range(8)]
    assert (record.outcome, record.attributes["steps"]) == (Outcome.COMPLETE, 8)
    assert bureau.checkpoints(0) == []


@pytest.mark.parametrize("why", ["", "  ", None])
def test_a_stop_has_a_reason(bureau: Bureau, why: Any) -> None:
    with pytest.raises(WorkloadError, match=r'such as run\.stop\("no gain for 5 evaluations"\)'):
        bureau.train(lambda run: run.stop(why))


def test_an_lbfgs_that_overshoots_by_its_last_step_is_full(make_bureau: MakeBureau) -> None:
    bureau = make_bureau(
        space={"optimizers": ["lbfgs"], "schedules": ["constant"]},
        optimizer={"lbfgs": {"lr": 0.01, "max_iter": 7}},
    )

    def train_for(steps: int) -> Callable[[Run], float]:
        def loop(run: Run) -> float:
            model = nn.Linear(1, 1)
            optimizer = run.optimizer(model)

            def closure() -> Any:
                optimizer.zero_grad()
                # One that shrinks slowly, so that every step uses what it may.
                loss = (model(torch.ones(4, 1)) - 300.0).abs().square().sum()
                loss.backward()
                return loss

            for _ in range(steps):
                for group in optimizer.param_groups:
                    group["max_iter"] = 7
                optimizer.step(closure)
            return 0.5

        return loop

    full, longer = bureau.train(train_for(3)), bureau.train(train_for(5))
    assert full.attributes["steps"] >= 20
    summary = read_summary(bureau.database, bureau.study)
    assert [record.number for record in summary.apart] == [longer.number]


# Whose optimizer it trained with.


def untouched(run: Run) -> float:
    run.optimizer(nn.Linear(1, 1))
    return 0.5


@pytest.mark.parametrize("loop", [lambda run: 0.5, untouched])
def test_a_trial_of_which_no_optimizer_stepped_has_failed(bureau: Bureau, loop: Any) -> None:
    record = bureau.train(loop)
    assert (record.outcome, record.value) == (Outcome.FAILED, None)
    assert "use the one that run.optimizer(model) returns" in record.attributes["error"]


def test_an_optimizer_of_the_loop_s_own_fails_it_by_reports_too(bureau: Bureau) -> None:
    def loop(run: Run) -> None:
        optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
        for _ in range(20):
            optimizer.step()
            run.report(val_loss=1.0)

    assert "an optimizer of its own" in bureau.train(loop).attributes["error"]


def test_a_trial_that_went_on_from_a_checkpoint_has_stepped(bureau: Bureau) -> None:
    def loop(run: Run) -> float:
        optimizer = run.optimizer(nn.Linear(1, 1))
        for step in run.steps():
            if step == 2:
                optimizer.step()
        return 0.5

    bureau.train(loop, stop_after=7)
    assert bureau.train(loop).outcome is Outcome.COMPLETE


# Where it reports.


def epochs_of(steps: int, report: Report) -> Callable[[Run], None]:
    def loop(run: Run) -> None:
        optimizer = run.optimizer(nn.Linear(1, 1))
        for epoch in range(20 // steps):
            for _ in range(steps):
                optimizer.step()
            report(run, epoch, 0.5 - 0.01 * epoch)

    return loop


def by_epoch(run: Run, epoch: int, value: float) -> None:
    run.report(epoch, val_loss=value)


def by_itself(run: Run, epoch: int, value: float) -> None:
    run.report(val_loss=value)


@pytest.mark.parametrize("steps", [1, 2, 5, 10])
def test_reports_by_epoch_stand_where_the_optimizer_does(bureau: Bureau, steps: int) -> None:
    numbered = bureau.train(epochs_of(steps, by_epoch)).evaluations
    plain = bureau.train(epochs_of(steps, by_itself)).evaluations
    assert numbered == plain
    assert list(plain) == [step for step in (5, 10, 15, 20) if step % steps == 0 or steps == 2]


def test_an_epoch_s_number_for_a_step_is_a_warning_once(bureau: Bureau) -> None:
    for _ in range(2):
        bureau.train(epochs_of(5, by_epoch))
    said = [line for line in bureau.said if "as if it counted epochs" in line]
    assert said == [
        "Trial 0: run.report was given step 1 after 10 steps of the optimizer, as if it counted "
        "epochs: reports are placed by the optimizer's steps. Leave the step out: "
        "run.report(val_loss=...)."
    ]


def accumulating(run: Run) -> None:
    optimizer = run.optimizer(nn.Linear(1, 1))
    for step in range(20):
        if step % 4 == 3:
            optimizer.step()
        run.report(step, val_loss=1.0)


def adversarial(run: Run) -> None:
    judge, maker = run.optimizer(nn.Linear(1, 1)), run.optimizer(nn.Linear(1, 1))
    for step in range(20):
        for _ in range(5):
            judge.step()
        maker.step()
        run.report(step, val_loss=1.0)


def skipping(run: Run) -> None:
    """Steps as a gradient scaler does that finds its first scales too large."""
    optimizer = run.optimizer(nn.Linear(1, 1))
    for step in range(20):
        if step > 3:
            optimizer.step()
        run.report(step, val_loss=1.0)


@pytest.mark.parametrize("loop", [accumulating, adversarial, skipping])
def test_a_loop_s_own_steps_are_believed_where_optimizers_step_otherwise(
    bureau: Bureau, loop: Any
) -> None:
    record = bureau.train(loop)
    assert list(record.evaluations) == [5, 10, 15, 20]
    assert record.attributes["steps"] == 20
    assert bureau.said == ["Trial 0 complete: val_loss 1"]


def test_reports_beyond_a_full_trial_draw_nothing_but_tell_the_value(bureau: Bureau) -> None:
    def loop(run: Run) -> None:
        optimizer = run.optimizer(nn.Linear(1, 1))
        for step in range(60):
            optimizer.step()
            run.report(val_loss=torch.tensor(float(60 - step)))

    record = bureau.train(loop)
    assert record.evaluations == {5: 56.0, 10: 51.0, 15: 46.0, 20: 41.0}
    assert record.value == 1.0
    [told] = [line for line in bureau.said if "of a full trial of 20" in line]
    assert "Set [budget] to what the loop trains" in told


def test_a_step_need_not_be_named_over_the_run_s_own(bureau: Bureau) -> None:
    due: list[int] = []

    def loop(run: Run) -> None:
        optimizer = run.optimizer(nn.Linear(1, 1))
        for step in run.steps():
            optimizer.step()
            if run.due():
                due.append(step)
                run.report(val_loss=float(step))

    assert bureau.train(loop).evaluations == {5: 4.0, 10: 9.0, 15: 14.0, 20: 19.0}
    assert due == [4, 9, 14, 19]


# What it asked for.


def reading(*names: str) -> Callable[[Run], float]:
    def loop(run: Run) -> float:
        for name in names:
            getattr(run if name == "batch_size" else run.train, name)
        optimizer = run.optimizer(nn.Linear(1, 1))
        schedule = run.schedule(optimizer)
        for _ in run.steps():
            optimizer.step()
            schedule.step()
        return 0.5

    return loop


def claims(bureau: Bureau, *names: str) -> Iterator[str]:
    bureau.train(reading(*names))
    summary = read_summary(bureau.database, bureau.study)
    return (line for line in to_python(summary).splitlines() if line.startswith("#"))


@pytest.mark.parametrize(
    ("names", "claim"),
    [
        ((), "# on models.parabola:Parabola."),
        (("batch_size",), "# on models.parabola:Parabola with batch size 32."),
        (
            ("batch_size", "precision", "grad_clip", "accumulate"),
            "# on models.parabola:Parabola with batch size 32, computed in 2 parts, float32, "
            "no gradient clipping.",
        ),
    ],
)
def test_the_export_claims_what_the_loop_asked_for(
    make_bureau: MakeBureau, names: tuple[str, ...], claim: str
) -> None:
    bureau = make_bureau(train={"batch_size": 32, "accumulate": 2})
    comments = list(claims(bureau, *names))
    assert claim in comments
    unread = sorted({"accumulate", "batch_size", "grad_clip", "precision"} - {*names})
    said = f"# Its loop did not ask its run for {', '.join(unread)}."
    assert (said in comments) == bool(unread)
    shown = {row[0] for row in best_tables(read_summary(bureau.database, bureau.study))[0].rows}
    assert ("batch_size" in shown) == ("batch_size" in names)


def test_all_of_a_table_read_at_once_has_been_read(bureau: Bureau) -> None:
    def loop(run: Run) -> float:
        dict(run.train)
        return reading()(run)

    assert "unread" not in bureau.train(loop).attributes
