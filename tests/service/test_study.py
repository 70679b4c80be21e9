"""`tuner.Study`: runs in the background, looks at a study, steers and deletes it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tuner
from tuner.errors import NotFoundError, SpecError, WorkloadError

Tuner = Callable[..., subprocess.CompletedProcess[str]]

SMALL: dict[str, Any] = {
    "optimizers": ["sgd", "adam"],
    "trials": 4,
    "steps": 20,
    "device": "cpu",
    "quiet": True,
}


def loop(run: tuner.Run) -> None:
    """Trains a line; a training loop that only this process has, where a test wraps it."""
    model = nn.Linear(3, 1)
    optimizer = run.optimizer(model)
    for _ in run.steps():
        loss = (model(torch.ones(4, 3)) - 1.0).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if run.due():
            run.report(val_loss=loss.item())


class Gate:
    """A training loop that waits at its first step until it is let through."""

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        self.checked = False

    def __call__(self, run: tuner.Run) -> None:
        model = nn.Linear(3, 1)
        optimizer = run.optimizer(model)
        for _ in run.steps():
            loss = model(torch.ones(4, 3)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if run.due():
                run.report(val_loss=loss.item())
                if self.checked:
                    self.reached.set()
                    self.open.wait(60)


@pytest.fixture
def gated(project: Path) -> tuple[tuner.Study, Gate]:
    """Returns a study that trains in the background, and waits in the middle of its first trial."""
    gate = Gate()
    study = tuner.Study.create(
        workload=gate,
        name="gated",
        optimizers=["sgd"],
        settings={"budget.trials": 2, "budget.steps": 20, "confirm.top": 0},
        device="cpu",
        quiet=True,
    )
    gate.checked = True
    study.run(device="cpu", quiet=True, background=True)
    assert gate.reached.wait(60)
    return study, gate


def test_a_run_in_the_background_is_waited_for(gated: tuple[tuner.Study, Gate]) -> None:
    study, gate = gated
    assert study.is_running
    assert not study.wait(timeout=0)
    gate.open.set()
    assert study.wait(60)
    assert study.state == "done"
    assert study.wait()  # once more says the same


def test_what_is_running_is_neither_run_again_nor_deleted(gated: tuple[tuner.Study, Gate]) -> None:
    study, gate = gated
    for act in (study.run, study.delete, study.close, study.confirm):
        with pytest.raises(SpecError, match=r"'gated' runs in the background here: wait\(\)"):
            act()
    with pytest.raises(SpecError, match="Another study trains in this process"):
        tuner.tune(loop, name="second", **SMALL)
    gate.open.set()
    study.wait()


def test_an_interrupted_run_is_saved_and_goes_on(gated: tuple[tuner.Study, Gate]) -> None:
    study, gate = gated
    assert not study.interrupt(timeout=0)
    gate.open.set()
    assert study.wait(60)
    shown = study.report().render("json")
    assert json.loads(shown)["counts"]["waiting"] == 1
    assert study.run(device="cpu", quiet=True).state == "done"


def test_a_stopped_study_ends_with_what_it_has(gated: tuple[tuner.Study, Gate]) -> None:
    study, gate = gated
    study.stop()
    gate.open.set()
    assert study.wait(60)
    assert study.state == "stopped"
    with pytest.raises(SpecError, match="The study 'gated' is stopped"):
        study.run(device="cpu", quiet=True)
    study.resume()
    assert study.run(device="cpu", quiet=True).state == "done"


def test_an_error_in_the_background_is_raised_where_somebody_waits(project: Path) -> None:
    broken = False

    def train(run: tuner.Run) -> None:
        if broken:
            raise ValueError("broken later")
        loop(run)

    study = tuner.Study.create(
        workload=train, settings={"budget.steps": 20}, device="cpu", quiet=True
    )
    broken = True
    study.run(device="cpu", quiet=True, background=True)
    with pytest.raises(WorkloadError, match="broken later"):
        study.wait()
    assert study.wait()


@pytest.fixture
def done(project: Path) -> tuner.Study:
    """Returns a study that is over."""

    def train(run: tuner.Run) -> None:
        loop(run)

    return tuner.tune(train, name="digits", confirm={"top": 0}, **SMALL)


def test_its_report_prints_and_is_written_by_its_ending(done: tuner.Study, project: Path) -> None:
    report = done.report("digits.html")
    assert str(report).startswith("digits  ")
    assert "Best trial" in repr(report)
    assert "srcdoc=" in report._repr_html_()
    assert "<!doctype html>" in (project / "digits.html").read_text()
    for name in ("digits.md", "digits.json", "digits.txt"):
        assert report.write(name).exists()
    with pytest.raises(SpecError, match=r"digits.pdf: the format .* \.html, \.htm, \.md"):
        done.report("digits.pdf")


def test_a_file_of_another_kind_is_kept(done: tuner.Study, project: Path) -> None:
    (project / "mine.md").write_text("mine")
    with pytest.raises(SpecError, match=r"mine\.md"):
        done.report("mine.md")
    done.report("mine.md", force=True)
    assert (project / "mine.md").read_text() != "mine"


def test_trials_are_a_frame_where_pandas_is(done: tuner.Study) -> None:
    pytest.importorskip("pandas")
    frame = done.trials
    assert list(frame["trial"]) == [0, 1, 2, 3]
    assert {"outcome", "value", "params.lr", "metrics.val_loss"} <= set(frame.columns)


def test_trials_are_dictionaries_where_pandas_is_not(
    done: tuner.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    trials = done.trials
    assert [trial["trial"] for trial in trials] == [0, 1, 2, 3]
    assert "params.lr" in trials[0]


def test_it_shows_itself(done: tuner.Study) -> None:
    assert repr(done).startswith("<tuner.Study 'digits', done, 4/4 trials, best ")
    card = done._repr_html_()
    assert card is not None
    assert done.best.config.optimizer in card
    assert done.verdict is None


def test_its_advice_is_calls(done: tuner.Study) -> None:
    advice = json.loads(done.report().render("json"))["advice"]
    commands = [one["command"] for one in advice]
    assert any(c.startswith("tuner.Study('digits', workload=train).run(") for c in commands)
    assert not any(c.startswith(("tuner study run", "tuner run")) for c in commands)


def test_finalists_run_again_and_there_is_a_verdict(project: Path) -> None:
    def train(run: tuner.Run) -> None:
        loop(run)

    study = tuner.tune(train, **SMALL)
    assert study.confirm(top=1, seeds=5, device="cpu", quiet=True) is study
    verdict = study.verdict
    assert verdict is not None
    assert all(arm.seeds >= 5 for arm in verdict.arms)


def test_it_is_found_again_and_needs_its_workload_to_go_on(done: tuner.Study) -> None:
    again = tuner.Study("digits")
    assert again.best == done.best
    with pytest.raises(SpecError, match=r"passing it again: tuner.Study\('digits', workload=train"):
        again.run(trials=5, device="cpu", quiet=True)
    with pytest.raises(SpecError, match=r"'digits' trains .*:train, and not .*:loop"):
        tuner.Study("digits", workload=loop)

    def train(run: tuner.Run) -> None:
        loop(run)

    more = tuner.Study("digits", workload=train).run(trials=5, device="cpu", quiet=True)
    assert (more.state, len(more.spec.space.optimizers)) == ("done", 2)


def test_commands_say_that_its_function_has_to_be_passed(done: tuner.Study, typed: Tuner) -> None:
    for words in (("study", "run", "digits", "--trials", "9"), ("study", "confirm", "digits")):
        refused = typed(*words)
        assert refused.returncode == 2
        assert "trains the function " in refused.stderr
        assert "test_study.py" in refused.stderr
        assert "tuner.Study('digits', workload=train).run()" in refused.stderr
    assert done.spec.budget.trials == 4
    assert typed("study", "report", "digits").returncode == 0


def test_a_worker_from_elsewhere_refuses_it(done: tuner.Study, tuner: Tuner) -> None:
    assert raise_elsewhere(done) == 6
    refused = tuner("worker", "start", "digits", "--device", "cpu")
    assert refused.returncode == 2
    assert "no database holds" in refused.stderr


def raise_elsewhere(study: tuner.Study) -> int:
    """Raises the number of trials of a study past those that have run; returns the number."""
    from tuner.service.steering import raise_trials
    from tuner.store import Studies, open_database

    database = open_database(study.storage)
    raised = raise_trials(database, Studies(database).find(study.name), 6)
    database.close()
    return raised.spec.budget.trials


def test_studies_are_listed_and_deleted(done: tuner.Study) -> None:
    assert [overview.name for overview in tuner.Study.list()] == ["digits"]
    done.delete()
    assert tuner.Study.list() == []
    with pytest.raises(NotFoundError, match="has no study 'digits'"):
        tuner.Study("digits")


def test_without_a_database_there_are_no_studies(project: Path) -> None:
    assert tuner.Study.list() == []
    assert not (project / "tuner.db").exists()


def test_it_stays_where_its_database_is_when_the_program_goes_elsewhere(
    done: tuner.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(done.report().view.summary.records) == 4
    assert done.best.study == "digits"
