"""Pausing, resuming, stopping, repairing and running again, as typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from optuna.trial import TrialState

from tests.conftest import MakeSpec
from tests.store.single_trials import SingleTrials
from tuner.cli.main import cli
from tuner.search import Proposer
from tuner.service.ownership import claim_folder
from tuner.store import Database, Studies, StudyHandle, TrialEnding, open_database
from tuner.store.control import read_state
from tuner.store.leases.workers import WorkerIdentity
from tuner.store.records import read_record

Type = Callable[..., Result]


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    url = f"sqlite:///{tmp_path / 'tuner.db'}"
    monkeypatch.setenv("TUNER_STORAGE", url)
    return open_database(url, create=True)


@pytest.fixture
def small(database: Database, make_spec: MakeSpec) -> StudyHandle:
    """Returns a study with a failed trial and one that a dead worker left behind."""
    study = Studies(database).create(make_spec())
    ledger = SingleTrials(database, study, WorkerIdentity("a", "host", 7, "cpu", "0"), lease_s=-1)
    ledger.register(0.0, lambda ordinal: ordinal)
    proposer = Proposer(study.spec, seed=0)
    for _ in range(2):
        lease = ledger.start_one(proposer.openings(), proposer.propose())
        assert lease is not None
        if lease.number == 0:
            ledger.finish_one(lease, TrialState.FAIL, None, {"error": "ValueError: x"})
    return study


@pytest.fixture
def typed(small: StudyHandle) -> Type:
    """Returns the command line in this process, on that database."""
    return lambda *arguments: CliRunner().invoke(cli, arguments)


def test_pause_and_resume_say_what_happens_and_what_to_do_next(typed: Type) -> None:
    paused = typed("study", "pause", "small")
    assert "'small' is paused" in paused.output
    assert "will be saved and given back" in paused.output
    assert "tuner study resume small" in paused.output
    assert "paused" in typed("study", "list").output
    assert json.loads(typed("study", "list", "--json").output)[0]["state"] == "paused"
    assert json.loads(typed("study", "show", "small", "--json").output)["state"] == "paused"
    assert "The study is paused" in typed("study", "show", "small").output
    assert "2 of 6 (paused)" in typed("study", "report", "small").output
    assert json.loads(typed("study", "report", "small", "--json").output)["state"] == "paused"
    assert "was paused already" in typed("study", "pause", "small").output
    assert "tuner study run small" in typed("study", "resume", "small").output
    assert "paused" not in typed("study", "list").output
    assert "idle" in typed("study", "list").output


@pytest.mark.parametrize(("order", "state"), [("pause", "paused"), ("stop", "stopped")])
def test_study_that_was_halted_is_not_run_until_it_is_resumed(
    typed: Type, database: Database, small: StudyHandle, order: str, state: str
) -> None:
    typed("study", order, "small")
    for _ in range(2):
        refused = typed("study", "run", "small", "--device", "cpu")
        assert refused.exit_code == 2
        assert f"'small' is {state}" in refused.output
        assert refused.output.endswith("tuner study resume small\n")
    assert read_state(database, small).value == state


def test_trial_at_a_rung_is_paused_wherever_it_is_shown(
    typed: Type, database: Database, small: StudyHandle
) -> None:
    ledger = SingleTrials(database, small, WorkerIdentity("b", "host", 8, "cpu", "0"))
    ledger.register(0.0, lambda ordinal: ordinal)
    lease = ledger.take_one(lambda worker: True)
    assert lease is not None
    ledger.report_one(lease, 5, 5, 0.5)
    assert not ledger.pause([TrialEnding(lease, TrialState.PRUNED, 0.5, {"steps": 5})], 5, 5)

    [listed] = json.loads(typed("study", "list", "--json").output)
    assert (listed["running"], listed["waiting"], listed["paused"]) == (0, 0, 1)
    shown = json.loads(typed("study", "show", "small", "--json").output)["trials"]
    assert [trial["outcome"] for trial in shown] == ["failed", "paused"]
    assert typed("trial", "show", "small", "1").output.startswith("Trial 1 of small: paused")
    assert "1 paused" in typed("study", "report", "small").output
    counts = json.loads(typed("study", "report", "small", "--json").output)["counts"]
    assert (counts["paused"], counts["waiting"], counts["running"]) == (1, 0, 0)
    assert "nothing" in typed("study", "repair", "small").output.lower()
    again = typed("trial", "rerun", "small", "1")
    assert again.exit_code == 2
    assert "not over yet" in again.output
    typed("study", "stop", "small")
    assert typed("trial", "show", "small", "1").output.startswith("Trial 1 of small: pruned")


def test_trial_that_nobody_trains_is_waiting_wherever_it_is_shown(typed: Type) -> None:
    [listed] = json.loads(typed("study", "list", "--json").output)
    assert (listed["running"], listed["waiting"], listed["activity"]) == (0, 1, "idle")
    shown = json.loads(typed("study", "show", "small", "--json").output)["trials"]
    assert [trial["outcome"] for trial in shown] == ["failed", "waiting"]
    assert "waiting" in typed("study", "show", "small").output
    assert typed("trial", "show", "small", "1").output.startswith("Trial 1 of small: waiting")
    assert "1 waiting" in typed("study", "report", "small").output
    assert "running" not in typed("study", "report", "small").output


def test_stop_ends_what_nobody_trains(typed: Type, database: Database, small: StudyHandle) -> None:
    stopped = typed("study", "stop", "small")
    assert "'small' is stopped" in stopped.output
    assert "tuner study report small" in stopped.output
    record = read_record(database, small, 1)
    assert record is not None
    assert record.attributes["stopped_by"] == "stop"


def test_repair_tells_what_it_did(typed: Type) -> None:
    assert typed("study", "repair", "small").output == (
        "Trial 1 freed: its worker was silent for too long, at step 0\n"
        "Train what was freed: tuner study run small\n"
    )
    assert typed("study", "repair", "small").output == "Nothing to repair.\n"
    assert json.loads(typed("study", "repair", "small", "--json").output) == []


def test_repair_deletes_the_checkpoints_of_trials_that_are_over(
    typed: Type, database: Database, small: StudyHandle
) -> None:
    checkpoints = claim_folder(database, small) / "checkpoints"
    checkpoints.mkdir()
    (checkpoints / f"trial-0-{'0' * 32}.pt").write_bytes(b"left behind")
    typed("study", "repair", "small")
    assert list(checkpoints.iterdir()) == []


def test_trial_runs_again_and_shows_its_history(typed: Type) -> None:
    rerun = typed("trial", "rerun", "small", "0")
    assert rerun.output.startswith("Trial 2 is trial 0 again")
    assert "tuner study run small" in rerun.output
    shown = typed("trial", "show", "small", "2").output
    assert "UTC rerun: trial 0 again" in shown
    assert "rerun_of: 0" in shown
    events = json.loads(typed("trial", "show", "small", "0", "--json").output)["events"]
    assert [event["kind"] for event in events] == ["started", "finished"]
    assert (events[0]["host"], events[0]["pid"]) == ("host", 7)
    refused = typed("trial", "rerun", "small", "9")
    assert refused.exit_code == 2
    assert "no trial 9" in refused.output


def test_remedy_for_a_used_up_budget_can_be_pasted(typed: Type) -> None:
    while not (refused := typed("trial", "rerun", "small", "0")).exit_code:
        pass
    command = refused.output.rpartition(": ")[2].split()
    assert command[0] == "tuner"
    assert typed(*command[1:]).output.startswith("Trial 6 is trial 0 again")


def test_unknown_study_is_told(typed: Type) -> None:
    for command in ("pause", "resume", "stop", "repair"):
        refused = typed("study", command, "smal")
        assert refused.exit_code == 2
        assert "small" in refused.output
