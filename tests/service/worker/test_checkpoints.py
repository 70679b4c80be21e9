from __future__ import annotations

import itertools
import math
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import MakeSpec
from tests.service.worker.contexts import Bureau, loop_of
from tuner.domain.states import StudyState
from tuner.domain.trials import Outcome
from tuner.errors import LeaseLostError
from tuner.service.worker.checkpoints import sweep
from tuner.store import Database
from tuner.store.control import set_state
from tuner.training.checkpoint_file import load_checkpoint, save_checkpoint
from tuner.training.run import Run

idle = loop_of(lambda run, step: None)


class Killed(BaseException):
    """Leaves a loop as a death of its process would: nothing more is told or saved."""


@pytest.fixture
def bureau(database: Database, make_spec: MakeSpec, tmp_path: Path) -> Bureau:
    return Bureau(
        database, make_spec, tmp_path, budget={"trials": 10_000, "steps": 20, "evaluations": 4}
    )


def interrupted(bureau: Bureau) -> tuple[Path, dict[str, Any]]:
    """Returns the checkpoint of a trial that was interrupted at its eighth step."""
    record = bureau.train(idle, stop_after=7)
    [path] = bureau.checkpoints(record.number)
    state = load_checkpoint(path)
    assert state is not None
    return path, state


def test_former_holder_that_wakes_leaves_the_checkpoint_that_counts(bureau: Bureau) -> None:
    def die(run: Run, step: int) -> None:
        if step == 9:
            raise Killed

    def lose(run: Run, step: int) -> None:
        if step == 2:
            run.checkpoint()
        if step == 6:
            # It hung; another has gone on from its checkpoint, and has not saved yet.
            with pytest.raises(Killed):
                bureau.train(loop_of(die), worker="b")

    with pytest.raises(LeaseLostError):
        bureau.train(loop_of(lose))
    record = bureau.train(idle, worker="c")
    assert bureau.said[-2] == "Trial 0 continues at step 3"
    assert record.outcome is Outcome.COMPLETE
    assert not bureau.checkpoints(0)


def test_former_holder_that_wakes_deletes_what_it_saved_in_vain(bureau: Bureau) -> None:
    def lose(run: Run, step: int) -> None:
        if step == 6:
            bureau.train(idle, worker="b")
            run.checkpoint()

    with pytest.raises(LeaseLostError):
        bureau.train(loop_of(lose))
    assert not bureau.checkpoints(0)


def test_trial_whose_checkpoint_is_elsewhere_starts_over_and_says_so(bureau: Bureau) -> None:
    path, _ = interrupted(bureau)
    path.unlink()
    assert bureau.train(idle).outcome is Outcome.COMPLETE
    [told] = [line for line in bureau.said if "starts over" in line]
    assert told.startswith(f"Trial 0 starts over: Its checkpoint {path} is not on this machine.")


@pytest.mark.parametrize("disguised", [False, True])
def test_checkpoint_of_another_trial_is_refused(bureau: Bureau, disguised: bool) -> None:
    _, other = interrupted(bureau)
    bureau.train(idle)
    path, state = interrupted(bureau)
    save_checkpoint(path, other | ({"owner": state["owner"]} if disguised else {}))
    seen: list[int] = []
    bureau.train(loop_of(lambda run, step: seen.append(step)))
    assert seen == list(range(20))
    [told] = [line for line in bureau.said if "starts over" in line]
    reason = "is of a trial of other hyperparameters" if disguised else "is of trial 0 of study"
    assert reason in told


def test_checkpoint_of_another_study_is_refused(bureau: Bureau) -> None:
    path, state = interrupted(bureau)
    save_checkpoint(path, state | {"owner": f"trial 0 of study {uuid.uuid4().hex}"})
    bureau.train(idle)
    assert any("is of trial 0 of study" in line for line in bureau.said)


def test_hyperparameters_of_its_own_other_than_on_record_are_refused(bureau: Bureau) -> None:
    drawn: list[float] = []
    loop = loop_of(lambda run, step: drawn.append(run.suggest_float("width", 0, 1)))
    bureau.train(loop, stop_after=7)
    [path] = bureau.checkpoints(0)
    state = load_checkpoint(path)
    assert state is not None
    save_checkpoint(path, state | {"own": {"width": 7.0}})
    bureau.train(loop)
    assert len(drawn) == 28
    assert len(set(drawn)) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"steps": {"done": 10**9, "turns": 7, "length": 20}},
        {"steps": {"done": 20, "turns": 20, "length": 20}},
        {"steps": {"done": 8, "turns": 9, "length": 20}},
        {"evaluated": 4},
        {"timing": {"train_s": math.nan, "eval_s": 0.0}},
        {"unsent": [("a", "b")]},
        {"unsent": [(5, 5, math.inf, [])]},
        {"unsent": [(5, 10, 1.0, [])]},
        {"unsent": [(5, 5, 1.0, [(5, "", 1.0)])]},
        {"standing": (4, 5, {"val_loss": 1.0})},
        {"standing": (1, 10, {"val_loss": 1.0})},
        {"standing": (1, 5, {"": 1.0})},
        {"standing": (1, 5, {"val_loss": "x"})},
        {"standing": (1, 5, [])},
        {"standing": 7},
    ],
)
def test_number_out_of_range_starts_the_trial_over(bureau: Bureau, change: dict[str, Any]) -> None:
    path, state = interrupted(bureau)
    save_checkpoint(path, state | change)
    seen: list[int] = []
    record = bureau.train(loop_of(lambda run, step: seen.append(step)))
    assert (record.outcome, seen) == (Outcome.COMPLETE, list(range(20)))


def test_numpy_beyond_its_table_starts_the_trial_over(bureau: Bureau) -> None:
    path, state = interrupted(bureau)
    name, keys, _, *rest = state["rng"]["numpy"]
    state["rng"]["numpy"] = (name, keys, 10**6, *rest)
    save_checkpoint(path, state)
    bureau.train(idle)
    assert any("position 1000000 is not within its 624 keys" in line for line in bureau.said)


Key = int | str


def walk(part: Any, path: tuple[Key, ...] = ()) -> Iterator[tuple[Key, ...]]:
    """Yields where every part of a state lies; of a long list its ends."""
    if isinstance(part, dict):
        keys = list(part)
    elif isinstance(part, list | tuple):
        keys = sorted({*range(min(3, len(part))), *range(max(0, len(part) - 1), len(part))})
    else:
        return
    for key in keys:
        yield (*path, key)
        yield from walk(part[key], (*path, key))


def change(part: Any, path: tuple[Key, ...], put: Any) -> Any:
    """Returns a state with something else at a place, or nothing there."""
    key, *rest = path
    kind, part = type(part), list(part) if isinstance(part, tuple) else part
    if rest:
        part[key] = change(part[key], tuple(rest), put)
    elif put is DROPPED:
        del part[key]
    else:
        part[key] = put
    return tuple(part) if kind is tuple else part


DROPPED = object()
OTHERS = [
    *(DROPPED, None, True, -1, 10**9, -(2**70), 1.5, math.nan, math.inf, "x", b"x"),
    *([], [1], (), {}, {"x": 1}, torch.zeros(0), torch.zeros(2, 3), torch.tensor(1)),
]


def rich(run: Run) -> None:
    """A loop with a bit of everything that a checkpoint keeps."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    optimizer = run.optimizer(model)
    schedule = run.schedule(optimizer)
    scaler = torch.optim.swa_utils.AveragedModel(model)
    run.checkpoint(average=scaler)
    run.suggest_float("width", 0.5, 2.0)
    for step in run.steps():
        optimizer.zero_grad()
        model(torch.randn(4, 2)).square().sum().backward()
        optimizer.step()
        schedule.step()
        scaler.update_parameters(model)
        run.report(step, val_loss=float(step))


@pytest.fixture
def rich_bureau(database: Database, make_spec: MakeSpec, tmp_path: Path) -> Bureau:
    return Bureau(
        database,
        make_spec,
        tmp_path,
        budget={"trials": 10_000, "steps": 6, "evaluations": 3},
        search={"sampler": "random", "pruner": "none"},
        space={"optimizers": ["adam", "sgd"], "schedules": ["plateau", "cosine"]},
    )


@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(at=st.integers(0, 2**16), put=st.sampled_from(OTHERS))
def test_no_change_to_a_checkpoint_fails_its_trial(rich_bureau: Bureau, at: int, put: Any) -> None:
    bureau = rich_bureau
    record = bureau.train(rich, stop_after=3)
    assert record.outcome is Outcome.RUNNING
    [path] = bureau.checkpoints(record.number)
    state = load_checkpoint(path)
    assert state is not None
    state["unsent"] = [(2, None, None, [(1, "loss", 1.0)])]
    places = list(walk(state))
    save_checkpoint(path, change(state, places[at % len(places)], put))
    said = len(bureau.said)
    record = bureau.train(rich)
    assert record.outcome in (Outcome.COMPLETE, Outcome.DIVERGED), record.attributes
    story = bureau.said[said]
    assert "continues at step" in story or "starts over" in story


def test_what_a_checkpoint_makes_a_loop_raise_starts_the_trial_over(bureau: Bureau) -> None:
    path, state = interrupted(bureau)
    for group in state["optimizers"][0]["param_groups"]:
        group["weight_decay"] = "x"
    save_checkpoint(path, state)
    record = bureau.train(idle)
    assert record.outcome is Outcome.COMPLETE
    assert any("going on from its checkpoint raised TypeError" in line for line in bureau.said)


@pytest.mark.parametrize(("step", "attempts"), [(8, 2), (12, 1)])
def test_fault_of_a_loop_is_recorded_as_its_own(bureau: Bureau, step: int, attempts: int) -> None:
    interrupted(bureau)
    raised = itertools.count()

    def fall(run: Run, at: int) -> None:
        if at == step:
            next(raised)
            raise ZeroDivisionError("of its own")

    with pytest.raises(ZeroDivisionError, match="of its own"):
        bureau.train(loop_of(fall))
    assert next(raised) == attempts


class TestSweep:
    def left_behind(self, bureau: Bureau) -> tuple[Path, Path]:
        """Returns a checkpoint, and what a process killed in a save has left beside it."""
        path, _ = interrupted(bureau)
        former = path.with_name(f"trial-0-{uuid.uuid4().hex}.1234.part")
        former.write_bytes(b"half")
        return path, former

    def test_what_can_count_is_kept_and_the_rest_deleted(
        self, bureau: Bureau, tmp_path: Path
    ) -> None:
        path, former = self.left_behind(bureau)
        notes = path.with_name("notes.txt")
        notes.write_text("mine", encoding="utf-8")
        sweep(tmp_path, bureau.database, bureau.study)
        assert (path.exists(), former.exists(), notes.exists()) == (True, False, True)
        bureau.train(idle)
        assert bureau.said[-2] == "Trial 0 continues at step 8"

    def test_files_of_a_trial_that_was_ended_while_nobody_held_it_go(
        self, bureau: Bureau, tmp_path: Path
    ) -> None:
        path, _ = self.left_behind(bureau)
        set_state(bureau.database, bureau.study, StudyState.PAUSED)
        set_state(bureau.database, bureau.study, StudyState.STOPPED)
        sweep(tmp_path, bureau.database, bureau.study)
        assert list(path.parent.iterdir()) == []

    def test_the_end_of_a_trial_takes_all_of_its_files(self, bureau: Bureau) -> None:
        path, _ = self.left_behind(bureau)
        bureau.train(idle)
        assert list(path.parent.iterdir()) == []

    def test_study_without_files_is_nothing_to_sweep(self, bureau: Bureau, tmp_path: Path) -> None:
        sweep(tmp_path / "none", bureau.database, bureau.study)
