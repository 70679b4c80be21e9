"""Trials of a command: real processes, of scripts that import nothing of tuner or its client."""

from __future__ import annotations

import json
import os
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import MakeSpec
from tests.service.worker.contexts import Bureau
from tuner.domain.allowed_commands import ALLOW_COMMAND, vouch_for_command
from tuner.domain.trials import Outcome, TrialRecord
from tuner.errors import CommandError, WorkloadError
from tuner.search.promotion import PromotionPruner
from tuner.service.interruption import Interruption
from tuner.store import Database
from tuner.store.records import read_record
from tuner.training.processes.command_loop import CommandLoop
from tuner.training.rehearsal import default_configs, prepare_checked, rehearse


class Told(Interruption):
    """Asks for a stop once a file holds a text."""

    def __init__(self, path: Path, text: str) -> None:
        super().__init__()
        self._path, self._text = path, text

    @property
    def requested(self) -> bool:
        return self._path.exists() and self._text in self._path.read_text()

    @requested.setter
    def requested(self, value: bool) -> None:
        pass


class Heard(Interruption):
    """Asks for a stop once an evaluation of a trial is on record."""

    def __init__(self, bureau: Bureau, number: int) -> None:
        super().__init__()
        self._bureau, self._number = bureau, number

    @property
    def requested(self) -> bool:
        record = read_record(self._bureau.database, self._bureau.study, self._number)
        return record is not None and bool(record.evaluations)

    @requested.setter
    def requested(self, value: bool) -> None:
        pass


class Commands(Bureau):
    """A bureau whose trials run a script."""

    def run(
        self, worker: str = "a", until: str | None = None, *, until_heard: bool = False
    ) -> TrialRecord:
        """Trains a trial; asks for a stop once its output holds a text, or it has reported."""
        interruption: Interruption | None = None
        if until is not None:
            interruption = Told(self.folder(0) / "output.log", until)
        elif until_heard:
            interruption = Heard(self, 0)
        return self.train(CommandLoop.of(self.study.spec), worker=worker, interruption=interruption)

    def folder(self, number: int) -> Path:
        return self._folder / "trials" / str(number)

    def output(self, number: int = 0) -> str:
        return (self.folder(number) / "output.log").read_text()


@pytest.fixture
def commands(
    database: Database, make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Returns a function that makes a bureau of a script, given as text."""
    monkeypatch.setenv(ALLOW_COMMAND, "")

    def make(script: str, *flags: str, **tables: Any) -> Commands:
        path = tmp_path / "script.py"
        path.write_text("import os, sys, json, time\n" + textwrap.dedent(script))
        command = [sys.executable, str(path), *flags]
        vouch_for_command(command)
        given = {
            "study": {"name": "small", "command": command},
            "space": {"optimizers": ["sgd"]},
            "process": {"grace_s": 2.0} | tables.pop("process", {}),
        }
        return Commands(database, make_spec, tmp_path / "study", **(given | tables))

    return make


def test_lines_that_hold_the_metric_are_evaluations(commands: Any) -> None:
    bureau = commands(
        """
        print("loading: step=3")
        for step in range(5, 21, 5):
            print(f"step {step}: step={step} val_loss={10 - step / 5}, accuracy: {step}")
        """
    )
    record = bureau.run()
    assert record.outcome is Outcome.COMPLETE
    assert record.evaluations == {5: 9.0, 10: 8.0, 15: 7.0, 20: 6.0}
    assert (record.value, record.attributes["steps"]) == (6.0, 20)
    assert record.attributes["metrics"] == {"val_loss": 6.0, "accuracy": 20.0}
    assert bureau.output().startswith("loading: step=3\n")
    assert (bureau.folder(0) / "output.log").stat().st_mode & 0o777 == 0o600


def test_settings_come_as_arguments_variables_and_a_file(commands: Any) -> None:
    bureau = commands(
        """
        tree = json.load(open(os.environ["TUNER_TRIAL_FILE"]))
        seen = {k: v for k, v in os.environ.items() if k.startswith("TUNER_")}
        print("seen", json.dumps([sys.argv[1:], seen, tree["settings"]]))
        print("val_loss=1.5")
        """,
        "--lr={lr}",
        "{{{optimizer}}}",
        "--momentum",
        "{momentum}",
        "{width}",
        own={"width": {"choices": [16]}},
        optimizer={"sgd": {"lr": 0.125}},
    )
    record = bureau.run()
    line = next(line for line in bureau.output().splitlines() if line.startswith("seen"))
    arguments, seen, settings = json.loads(line.removeprefix("seen "))
    assert arguments == ["--lr=0.125", "{sgd}", "16"]
    assert (settings["lr"], settings["width"], settings["steps"]) == (0.125, 16, 20)
    assert seen["TUNER_PARAM_LR"] == "0.125"
    assert seen["TUNER_TRIAL_FOLDER"] == str(bureau.folder(0))
    assert {"TUNER_STORAGE", "TUNER_RESUME"}.isdisjoint(seen)
    assert record.proposal.params["width"] == 16
    # It never said how far it was, so it has trained in full.
    assert (record.value, record.evaluations) == (1.5, {20: 1.5})


def test_seeds_are_such_as_every_library_takes(commands: Any) -> None:
    # Those of a confirmation have 63 bits, of which NumPy refuses all beyond 32.
    bureau = commands("print('val_loss=' + sys.argv[1])", "{seed}", search={"seed": 2**40 + 5})
    assert bureau.run().value == 5.0


@pytest.mark.parametrize("lines", [1, 3])
def test_a_check_takes_a_metric_without_a_step_as_the_last_evaluation(
    commands: Any, lines: int
) -> None:
    bureau = commands(f"for _ in range({lines}): print('val_loss=1.5', flush=True)")
    loop, spec = prepare_checked(bureau.study.spec, torch.device("cpu")), bureau.study.spec
    assert isinstance(loop, CommandLoop)
    metrics, _ = rehearse(loop, spec, default_configs(spec)[0], torch.device("cpu"))
    assert metrics == {"val_loss": 1.5}
    assert loop.ends_at_once


@pytest.mark.parametrize(
    ("steps", "ends"), [("[5, 20]", False), ("[19, 20]", False), ("[20]", True), ("[0, 5]", False)]
)
def test_a_check_hears_whether_trials_evaluate_before_their_end(
    commands: Any, steps: str, ends: bool
) -> None:
    bureau = commands(f"for step in {steps}: print(f'Step [{{step}}/20] val_loss: 1', flush=True)")
    loop = prepare_checked(bureau.study.spec, torch.device("cpu"))
    assert isinstance(loop, CommandLoop)
    assert loop.ends_at_once is ends


def test_a_command_that_trains_on_is_ended_at_the_budget(commands: Any) -> None:
    bureau = commands(
        """
        for step in range(5, 10**6, 5):
            print(f"step={step} val_loss={step}")
            if step > 20: time.sleep(60)
        """
    )
    began = time.monotonic()
    record = bureau.run()
    assert record.outcome is Outcome.COMPLETE
    assert (record.value, record.attributes["steps"]) == (20.0, 20)
    assert time.monotonic() - began < 20


def test_steps_counted_from_zero_make_a_full_trial_where_the_command_ends(commands: Any) -> None:
    bureau = commands("for s in range(20): print(f'step={s} val_loss={s}')")
    record = bureau.run()
    assert (record.outcome, record.value, record.attributes["steps"]) == (
        Outcome.COMPLETE,
        19.0,
        20,
    )


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("raise ValueError('the scale is off')", "exit code 1: ValueError: the scale is off"),
        ("print('odd'); sys.exit(3)", "ended with exit code 3: odd"),
        ("os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
        ("print('fine')", "ended without reporting val_loss"),
        ("print('step=500 val_loss=1'); time.sleep(9)", "first evaluation after 500 steps"),
    ],
)
def test_a_command_that_fails_tells_why(commands: Any, script: str, words: str) -> None:
    bureau = commands(script)
    with pytest.raises(CommandError) as caught:
        bureau.run()
    assert words in str(caught.value).splitlines()[0]
    if "ValueError" in words:
        assert caught.value.place.endswith("script.py:2")
        assert "Traceback" in str(caught.value)


def test_an_infinite_metric_diverges(commands: Any) -> None:
    bureau = commands("print('step=5 val_loss=nan'); time.sleep(60)")
    record = bureau.run()
    assert (record.outcome, record.attributes["diverged_step"]) == (Outcome.DIVERGED, 5)


def test_a_pattern_of_the_users_finds_reports(commands: Any) -> None:
    bureau = commands(
        "for i in range(1, 5): print(f'[{5 * i:>3}] loss 0.{i} other 7')",
        process={"pattern": r"\[\s*(?P<step>\d+)\] loss (?P<val_loss>\S+)"},
    )
    assert bureau.run().evaluations == {5: 0.1, 10: 0.2, 15: 0.3, 20: 0.4}


def test_epochs_are_counted_where_the_budget_does(commands: Any) -> None:
    bureau = commands(
        "for e in range(1, 4): print(f'epoch={e} val_loss={e}')",
        budget={"trials": 6, "epochs": 3, "evaluations": 3},
    )
    record = bureau.run()
    assert (record.outcome, record.evaluations) == (Outcome.COMPLETE, {1: 1.0, 2: 2.0, 3: 3.0})


CLIENT = """
import tuner
trial = tuner.current()
assert "torch" not in sys.modules
for step in range(20):
    trial.log(pace=step)
    if step % 5 == 4:
        trial.report(step, val_loss=float(step))
        print("went on after", step)
    if trial.should_stop: break
print("left at", step)
"""


def test_a_script_reports_by_the_client_without_torch(commands: Any) -> None:
    bureau = commands(CLIENT)
    record = bureau.run()
    assert record.evaluations == {5: 4.0, 10: 9.0, 15: 14.0, 20: 19.0}
    assert "left at 19" in bureau.output()


def test_the_client_is_pruned_by_an_exception(commands: Any, short_trials: None) -> None:
    bureau = commands(
        """
        import tuner
        worst = int(os.environ["TUNER_TRIAL"])
        try:
            for step in range(20):
                if step % 5 == 4: tuner.current().report(step, val_loss=worst + 1)
        except tuner.Pruned:
            print("pruned at", step)
            raise
        """,
    )
    pruned = next(r for r in iter(bureau.run, None) if r.outcome is Outcome.PRUNED)
    assert list(pruned.evaluations)[-1] < 20
    assert "pruned at" in bureau.output(pruned.number)


def test_the_client_hears_of_a_metric_that_is_missing(commands: Any) -> None:
    bureau = commands("import tuner; tuner.current().report(0, acc=1.0)")
    with pytest.raises(CommandError, match=r"WorkloadError.*was given acc, but study.metric"):
        bureau.run()


RANKS = """
import subprocess, tuner
if "RANK" not in os.environ:
    ranks = [{**os.environ, "RANK": rank, "WORLD_SIZE": "2"} for rank in "10"]
    processes = [subprocess.Popen([sys.executable, __file__], env=rank) for rank in ranks]
    sys.exit(max(process.wait() for process in processes))
trial = tuner.current()
for step in range(100):
    if step % 5 == 4: trial.report(step, val_loss=step + 100.0 * trial._rank)
    if trial.should_stop: break
print("rank", os.environ["RANK"], "left at", step)
"""


def test_all_ranks_of_a_script_get_the_answer_of_the_first(commands: Any) -> None:
    bureau = commands(RANKS)
    assert bureau.run().evaluations == {5: 4.0, 10: 9.0, 15: 14.0, 20: 19.0}
    lines = bureau.output().splitlines()
    assert sorted(lines) == ["rank 0 left at 19", "rank 1 left at 19"]


TRAINS = """
import torch, tuner
trial = tuner.current()
model = torch.nn.Linear(2, 1)
optimizer = trial.optimizer(model)
schedule = trial.schedule(optimizer)
data = torch.ones(8, 2)
for step in trial.batches():
    optimizer.zero_grad()
    loss = (model(data) - 1).square().mean()
    loss.backward(); optimizer.step(); schedule.step()
    if trial.due(): trial.report(val_loss=loss)
print("optimizer", optimizer.param_groups[0]["initial_lr"])
"""


def test_the_client_gives_the_trials_optimizer(commands: Any) -> None:
    bureau = commands(TRAINS, optimizer={"sgd": {"lr": 0.125}})
    record = bureau.run()
    assert record.outcome is Outcome.COMPLETE
    assert list(record.evaluations) == [5, 10, 15, 20]
    assert "optimizer 0.125" in bureau.output()


RESUMES = """
folder = os.environ["TUNER_TRIAL_FOLDER"]
path = os.path.join(folder, "step.txt")
begin = int(open(path).read()) if os.environ.get("TUNER_RESUME") else 0
print("begins at", begin, os.environ["TUNER_STEP"])
for step in range(begin + 5, 21, 5):
    open(path, "w").write(str(step))
    print(f"step={step} val_loss={step}")
    if not os.path.exists(sys.argv[0] + ".once"):
        open(sys.argv[0] + ".once", "w").close()
        time.sleep(300)  # until it is stopped
    time.sleep(0.3)
"""


@pytest.fixture
def _always_pauses(monkeypatch: pytest.MonkeyPatch, short_trials: None) -> None:
    monkeypatch.setattr(PromotionPruner, "_least", 0)


@pytest.mark.usefixtures("_always_pauses")
@pytest.mark.parametrize("resumable", [True, False])
def test_a_command_pauses_if_it_is_resumable_and_is_pruned_else(
    commands: Any, resumable: bool
) -> None:
    bureau = commands(
        RESUMES,
        process={"resumable": resumable},
        search={"pruner": "halving", "sampler": "random", "portfolio": False},
        budget={"trials": 40, "steps": 20, "evaluations": 4},
    )
    record = bureau.run()
    if not resumable:
        assert record.outcome is Outcome.PRUNED
        return
    assert (record.outcome, record.evaluations) == (Outcome.RUNNING, {5: 5.0})
    while len(bureau.context.ledger.read_paused().trials) > 0 and record.number < 3:
        record = bureau.run()
    assert "begins at 5 5" in bureau.output(0)


def test_a_command_that_is_not_resumable_starts_over_in_an_empty_folder(commands: Any) -> None:
    bureau = commands(RESUMES)
    bureau.run(until_heard=True)
    assert "start over: a command goes on" in bureau.said[-1]
    assert "process.resumable = true" in bureau.said[-1]
    assert (bureau.folder(0) / "step.txt").exists()
    record = bureau.run(worker="b")
    assert record.outcome is Outcome.COMPLETE
    assert bureau.output().count("begins at 0 0") == 2


def test_a_resumable_command_is_taken_over_where_it_was(commands: Any) -> None:
    bureau = commands(RESUMES, process={"resumable": True})
    bureau.run(until_heard=True)
    record = bureau.run(worker="b")
    assert (record.outcome, list(record.evaluations)) == (Outcome.COMPLETE, [5, 10, 15, 20])
    first, second = [line for line in bureau.output().splitlines() if line.startswith("begins")]
    assert (first, second) == ("begins at 0 0", "begins at 5 5")


def test_a_silent_command_counts_as_hung(commands: Any) -> None:
    bureau = commands("time.sleep(60)", train={"stall_s": 1.0})
    with pytest.raises(CommandError, match=r"nothing for 1 s \(train.stall_s\)"):
        bureau.run()


def test_children_in_other_sessions_end_with_the_command(commands: Any) -> None:
    bureau = commands(
        """
        import subprocess
        child = subprocess.Popen(["sleep", "300"], start_new_session=True)
        print("child", child.pid)
        print("step=20 val_loss=1")
        """
    )
    bureau.run()
    pid = int(bureau.output().split()[1])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_command_nobody_allowed_does_not_run(
    commands: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bureau = commands("print('val_loss=1')")
    monkeypatch.setenv(ALLOW_COMMAND, "python other.py")
    with pytest.raises(Exception, match=r"was not run.*--allow-command"):
        bureau.run()


def test_messages_without_the_token_are_not_heard(commands: Any) -> None:
    bureau = commands(
        """
        import socket
        link = socket.socket(socket.AF_UNIX); link.connect(os.environ["TUNER_CHANNEL"])
        report = b'{"do": "report", "count": 20, "metrics": {"val_loss": 0}}'
        link.sendall(b'{"token": "no"}\\n' + report + b"\\n")
        print("answer", link.recv(99))
        print("step=20 val_loss=5")
        """
    )
    assert bureau.run().value == 5.0
    assert "answer b''" in bureau.output()


def test_errors_of_a_command_are_a_workloads() -> None:
    assert issubclass(CommandError, WorkloadError)
