"""Lists and views of studies and trials that change nothing, as typed."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path

import click
import optuna
import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result
from optuna.trial import TrialState

from tests.cli.terminals import run_on_terminal
from tests.cli.test_light_commands import commands
from tests.conftest import MakeSpec
from tests.store.single_trials import SingleTrials
from tuner.cli.main import cli
from tuner.domain.states import StudyState
from tuner.search import Proposer
from tuner.service.ownership import MARK, claim_folder
from tuner.store import Database, Studies, StudyHandle, open_database
from tuner.store.control import set_state
from tuner.store.leases.workers import WorkerIdentity
from tuner.store.origin import read_origin
from tuner.store.tables import workers

Type = Callable[..., Result]
Make = Callable[..., StudyHandle]

_LONG = "a-study-whose-name-" + "is-longer-than-" * 8 + "any-terminal"


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    url = f"sqlite:///{tmp_path / 'tuner.db'}"
    monkeypatch.setenv("TUNER_STORAGE", url)
    monkeypatch.chdir(tmp_path)
    return open_database(url, create=True)


@pytest.fixture
def make(database: Database, make_spec: MakeSpec) -> Make:
    """Returns what makes a study of a name, with a trial for each value; None for a failed one."""

    def make(name: str, *values: float | None, **tables: object) -> StudyHandle:
        study = {"name": name, "workload": "models.parabola:Parabola"}
        study_ = Studies(database).create(make_spec(study=study, **tables))
        worker = WorkerIdentity(f"{len(name):032x}", "host", 7, "cpu", "0")
        ledger = SingleTrials(database, study_, worker)
        ledger.register(0.0, lambda ordinal: ordinal)
        proposer = Proposer(study_.spec, seed=0)
        for value in values:
            lease = ledger.start_one([], proposer.propose())
            assert lease is not None
            state = TrialState.FAIL if value is None else TrialState.COMPLETE
            told = {"error": "ValueError: 7, bad"} if value is None else {"steps": 20}
            ledger.finish_one(lease, state, value, told | {"metrics": {"val_accuracy": 0.5}})
        return study_

    return make


@pytest.fixture
def typed() -> Type:
    """Returns the command line in this process."""
    return lambda *arguments: CliRunner().invoke(cli, arguments)


def names(shown: Result) -> list[str]:
    assert shown.exit_code == 0, shown.output
    return [row["name"] for row in json.loads(shown.stdout)]


def test_studies_are_filtered_and_sorted(typed: Type, make: Make, database: Database) -> None:
    for name in ("digits", "digits-2", "other"):
        make(name, 0.5)
    set_state(database, Studies(database).find("digits-2"), StudyState.PAUSED)
    assert names(typed("study", "list", "--json")) == ["digits", "digits-2", "other"]
    assert names(typed("study", "list", "git", "--json")) == ["digits", "digits-2"]
    assert names(typed("study", "list", "git*", "--json")) == []
    assert names(typed("study", "list", "*-?", "--json")) == ["digits-2"]
    assert names(typed("study", "list", "--state", "paused", "--json")) == ["digits-2"]
    assert names(typed("study", "list", "--workload", "parabola", "--json"))[0] == "digits"
    assert names(typed("study", "list", "--workload", "mnist", "--json")) == []
    with database.write() as connection:
        seen = sa.update(workers).where(workers.c.worker_id == f"{len('other'):032x}")
        connection.execute(seen.values(last_seen=4e9))
    assert names(typed("study", "list", "--sort", "active", "--json"))[0] == "other"
    assert "None of 3 studies is so." in typed("study", "list", "nothing").output


def test_list_tells_when_a_study_was_created_and_last_active(typed: Type, make: Make) -> None:
    make("digits", 0.5)
    shown = typed("study", "list").stdout
    assert re.search(r"study +state +trials +best +active +created", shown)
    assert re.search(r"digits +idle +1/6 +0\.5 +\d+ s ago +20\d\d-\d\d-\d\d", shown)
    [row] = json.loads(typed("study", "list", "--json").stdout)
    assert row["active_at"] >= row["created_at"]
    minute = r"20\d\d-\d\d-\d\d \d\d:\d\d UTC"
    shown = typed("study", "show", "digits").stdout
    assert re.search(rf"created +{minute}\n +last active +{minute} \(\d+ s ago\)", shown)


def test_long_name_is_whole_in_a_pipe_and_on_a_narrow_terminal(
    typed: Type, make: Make, tmp_path: Path
) -> None:
    make(_LONG, 0.123456)
    assert _LONG in typed("study", "list").stdout
    shown = run_on_terminal("study", "list", cwd=tmp_path, columns=60)
    lines = shown.text.splitlines()
    assert max(map(len, lines)) <= 60
    below = lines[next(place for place, line in enumerate(lines) if "───" in line) + 1 :]
    rows = itertools.takewhile(str.strip, below)
    column = "".join(line.split()[0] for line in rows)
    assert column == _LONG
    assert "0.1235" in shown.text or "best" in shown.text.partition("Left out")[2]


def test_studies_of_others_are_told_of(typed: Type, make: Make, database: Database) -> None:
    optuna.create_study(study_name="theirs", storage=database.storage)
    shown = typed("study", "list")
    assert "No studies yet" in shown.stdout
    assert "1 other study is not listed, since not made by tuner" in shown.stderr
    make("ours")
    optuna.create_study(study_name="theirs-too", storage=database.storage)
    shown = typed("study", "list", "--json")
    assert names(shown) == ["ours"]
    assert "2 other studies are not listed" in shown.stderr


def test_show_is_short_and_has_the_file_on_request(typed: Type, make: Make) -> None:
    make("digits", 0.5, 0.25, None)
    shown = typed("study", "show", "digits").stdout
    assert len(shown.splitlines()) < 22
    assert "3 of 6: 2 complete, 1 failed" in shown
    assert re.search(r"best +0\.25, trial 1, \w+ with \w+", shown)
    file = typed("study", "show", "digits", "--spec").stdout
    Path("again.toml").write_text(file)
    again = typed("study", "create", "again.toml", "--name", "again", "--no-check")
    assert again.exit_code == 0, again.output
    settings = json.loads(typed("study", "diff", "digits", "again", "--json").stdout)["settings"]
    assert settings == {}
    assert "Its trials" not in file
    refused = typed("study", "show", "digits", "--spec", "--json")
    assert (refused.exit_code, "choose one of the two" in refused.output) == (2, True)


def test_diff_shows_settings_that_differ_and_results(typed: Type, make: Make) -> None:
    make("one", 0.5, None)
    budget = {"trials": 9, "steps": 20, "evaluations": 4}
    space = {"optimizers": ["sgd", "momentum"], "schedules": ["constant", "cosine"]}
    make("two", 0.25, budget=budget, space=space)
    found = json.loads(typed("study", "diff", "one", "two", "--json").stdout)
    assert found["studies"] == ["one", "two"]
    assert found["settings"]["budget.trials"] == [6, 9]
    assert found["settings"]["space.optimizers"] == [["sgd", "adam"], ["sgd", "momentum"]]
    assert set(found["settings"]) == {"budget.trials", "space.optimizers"}
    assert found["results"]["best"] == [0.5, 0.25]
    assert found["results"]["failed"] == [1, 0]
    assert found["comparable"] is True
    shown = typed("study", "diff", "one", "two").stdout
    assert re.search(r"budget\.trials +6 +9\n", shown)
    assert re.search(r"value of the winner +0\.5 +0\.25\n", shown)
    page = typed("study", "diff", "one", "two", "--format", "html").stdout
    assert "<bdi>one</bdi> and <bdi>two</bdi>" in page
    written = typed("study", "diff", "one", "two", "--format", "html", "--output", "both.html")
    assert (written.exit_code, Path("both.html").read_text()[:15]) == (0, "<!doctype html>")
    assert (
        "| budget.trials | 6 | 9 |"
        in typed("study", "diff", "one", "two", "--format", "markdown").stdout
    )
    assert typed("study", "diff", "one", "two", "--open").exit_code == 2
    same = typed("study", "diff", "one", "one").stdout
    assert "Settings: none differs" in same
    assert typed("study", "diff", "one", "none").exit_code == 2


def test_diff_of_different_aims_says_that_values_cannot_be_compared(
    typed: Type, make: Make, database: Database, make_spec: MakeSpec
) -> None:
    make("one", 0.5)
    section = {"name": "two", "workload": "models.digits:Digits"}
    Studies(database).create(make_spec(study=section))
    assert "of different workloads" in typed("study", "diff", "one", "two").stderr
    section |= {"name": "three", "metric": "accuracy", "direction": "maximize"}
    Studies(database).create(make_spec(study=section))
    shown = typed("study", "diff", "one", "three")
    assert "'one' is to minimize val_loss, 'three' to maximize accuracy" in shown.stderr
    assert (
        json.loads(typed("study", "diff", "one", "three", "--json").stdout)["comparable"] is False
    )


def test_trials_are_listed_sorted_filtered_and_cut(typed: Type, make: Make) -> None:
    study = make("digits", 0.5, 0.25, None, 0.75)

    def numbers(*options: str) -> list[int]:
        shown = typed("trial", "list", "digits", *options, "--json")
        assert shown.exit_code == 0, shown.output
        return [row["trial"] for row in json.loads(shown.stdout)]

    assert numbers() == [0, 1, 2, 3]
    assert numbers("--sort", "value") == [1, 0, 3, 2]
    assert numbers("--sort", "value", "--reverse") == [3, 0, 1, 2]
    assert numbers("--sort", "value", "--limit", "2") == [1, 0]
    assert numbers("--outcome", "failed") == [2]
    assert numbers("--outcome", "failed", "--outcome", "complete") == [0, 1, 2, 3]
    own = [numbers("--optimizer", name) for name in study.spec.space.optimizers]
    assert sorted(number for some in own for number in some) == [0, 1, 2, 3]
    refused = typed("trial", "list", "digits", "--optimizer", "adma")
    assert (refused.exit_code, "did you mean 'adam'?" in refused.output) == (2, True)
    assert typed("trial", "list", "digits", "--json", "--csv").exit_code == 2
    shown = typed("trial", "list", "digits", "--limit", "1").stdout
    assert "1 of 4 trials" in shown
    assert re.search(r"trial +optimizer +outcome +val_loss +lr +schedule +steps +took", shown)


def test_tables_of_trials_are_the_same_however_they_are_asked_for(
    typed: Type, make: Make, tmp_path: Path
) -> None:
    make("digits", 0.5, None)
    listed = typed("trial", "list", "digits", "--csv").stdout
    rows = list(csv.DictReader(io.StringIO(listed)))
    assert [row["trial"] for row in rows] == ["0", "1"]
    assert (rows[0]["value"], rows[1]["value"]) == ("0.5", "")
    assert float(rows[0]["params.lr"]) > 0
    assert rows[0]["metrics.val_accuracy"] == "0.5"
    assert rows[1]["error"] == "ValueError: 7, bad"
    assert typed("study", "export", "digits", "--format", "csv").stdout == listed
    assert typed("study", "export", "digits", "--all").stdout == listed
    table = json.loads(typed("study", "export", "digits", "--all", "--format", "json").stdout)
    assert table == json.loads(typed("trial", "list", "digits", "--json").stdout)
    for _ in range(2):  # over its own file freely
        for style in ("csv", "json"):
            file = str(tmp_path / f"trials.{style}")
            command = ("study", "export", "digits", "--all", "--format", style, "--output", file)
            assert typed(*command).exit_code == 0
    assert (tmp_path / "trials.csv").read_text() == listed


def test_export_refuses_what_makes_no_table(typed: Type, make: Make) -> None:
    make("digits", 0.5)
    for options, told in (
        (("--all", "--format", "toml"), "a table is csv, json or parquet"),
        (("--format", "csv", "--trial", "0"), "a table is of all trials"),
        (("--format", "parquet"), "--output trials.parquet"),
    ):
        refused = typed("study", "export", "digits", *options)
        assert (refused.exit_code, told in refused.output) == (2, True), refused.output


def test_clean_shows_and_frees_what_finished_studies_hold(
    typed: Type, make: Make, database: Database
) -> None:
    done, going = make("done", 0.5), make("going", 0.5)
    set_state(database, done, StudyState.STOPPED)
    files = {}
    for study in (done, going):
        folder = claim_folder(database, study) / "checkpoints"
        folder.mkdir()
        files[study.name] = folder / f"trial-0-{'a' * 32}.pt"
        files[study.name].write_bytes(b"x" * 2500)
    found = json.loads(typed("study", "clean", "--json").stdout)["studies"]
    assert [(row["study"], row["size"], row["is_free"]) for row in found] == [
        ("done", 2500, True),
        ("going", 2500, False),
    ]
    asked = CliRunner().invoke(cli, ["study", "clean"], input="n\n")
    assert "Free 2.5 kB of 1 finished study?" in asked.output
    assert files["done"].exists()
    assert "Freed 2.5 kB." in typed("study", "clean", "--yes").stderr
    assert not files["done"].exists()
    assert files["going"].exists()
    assert "None of these studies is finished" in typed("study", "clean", "--yes").stderr
    assert "No study holds checkpoints" in typed("study", "clean", "done").stderr


def test_clean_frees_the_trial_folders_of_finished_command_studies(
    typed: Type, database: Database, make_spec: MakeSpec
) -> None:
    command = {"command": ["python", "train.py"], "metric": "val_loss"}
    files = {}
    for name, table in (
        ("over", command),
        ("going", command),
        ("loop", {"workload": "models.digits:Digits"}),
    ):
        spec = make_spec(study={"name": name} | table, budget={"steps": 10, "epochs": None})
        study = Studies(database).create(spec)
        folder = claim_folder(database, study) / "trials" / "3"
        folder.mkdir(parents=True)
        files[name] = folder / "model.pt"
        files[name].write_bytes(b"x" * 4000)
        if name != "going":
            set_state(database, study, StudyState.STOPPED)
    found = json.loads(typed("study", "clean", "--json").stdout)["studies"]
    assert [(row["study"], row["folders"], row["size"], row["is_free"]) for row in found] == [
        ("going", 1, 4000, False),
        ("over", 1, 4000, True),
    ]
    assert "trial folders" in typed("study", "clean", "--yes").stdout
    assert [name for name, file in files.items() if file.exists()] == ["going", "loop"]
    assert not files["over"].parent.exists()
    assert "No study holds" in typed("study", "clean", "over").stderr


def test_clean_frees_what_is_left_of_studies_that_others_deleted(
    typed: Type, make: Make, database: Database
) -> None:
    gone = make("gone", 0.5)
    folder = claim_folder(database, gone)
    (folder / "logs").mkdir()
    (folder / "logs" / "worker.log").write_text("x" * 1000)
    register(database, gone)
    optuna.delete_study(study_name="gone", storage=database.storage)
    shown = typed("study", "clean", "--json")
    [row] = json.loads(shown.stdout)["gone"]
    assert row["is_free"] is True
    assert row["reason"] == "its study was in this database, and has been deleted"
    assert folder.exists()
    asked = CliRunner().invoke(cli, ["study", "clean"], input="y\n")
    assert "of 1 deleted study?" in asked.output
    assert "Freed" in asked.output
    assert not folder.exists()
    assert "No study holds checkpoints" in typed("study", "clean").stderr


def test_clean_leaves_what_may_be_of_another_database_and_says_why(
    typed: Type, make: Make, database: Database, make_spec: MakeSpec, tmp_path: Path
) -> None:
    make("here", 0.5)
    other = open_database(f"sqlite:///{tmp_path / 'other.db'}", create=True)
    theirs = Studies(other).create(make_spec())
    kept = claim_folder(other, theirs)  # of a database that is there
    unmarked = kept.with_name("b" * 32)
    unmarked.mkdir()
    unknown = kept.with_name("c" * 32)  # as of a database that was here before this one
    unknown.mkdir()
    (unknown / MARK).write_text(f"{read_origin(database).describe(unknown)}\n")
    linked = kept.with_name("d" * 32)
    linked.symlink_to(kept)
    told = typed("study", "clean", "--yes").stdout
    assert f"{unmarked} stays: it is of no database: none has claimed it." in told
    assert f"{unknown} stays: nothing in this database tells of its study" in told
    assert str(kept) not in told
    for folder in (kept, unmarked, unknown, linked):
        assert folder.exists()
    Studies(other).delete(theirs)
    register(database, theirs)  # its name in this database gives no right to another's folder
    told = typed("study", "clean", "--yes").stdout
    assert f"{kept} stays: it is of another database, which is gone" in told
    assert kept.exists()
    other.close()


def register(database: Database, study: StudyHandle) -> None:
    """Notes a worker of a study, as each worker does when it begins."""
    row = {"worker_id": study.uuid, "study_uuid": study.uuid, "ordinal": 0, "host": "host"}
    row |= {"pid": 1, "device": "cpu", "version": "1", "seed": "0"}
    with database.write() as connection:
        connection.execute(sa.insert(workers).values(**row, started_at=1.0, last_seen=2.0))


def test_quiet_commands_say_nothing_and_do_it(typed: Type, make: Make, database: Database) -> None:
    study = make("digits", 0.5)
    for command in (
        ("study", "pause", "digits"),
        ("study", "resume", "digits"),
        ("trial", "rerun", "digits", "0"),
        ("study", "stop", "digits"),
    ):
        shown = typed(*command, "-q")
        assert (shown.exit_code, shown.output) == (0, "")
    assert len(json.loads(typed("trial", "list", "digits", "--json").stdout)) == 2
    assert typed("study", "delete", "digits", "--yes", "-q").output == ""
    assert Studies(database).get(study.name) is None


def test_json_of_commands_that_act_tells_what_they_did(typed: Type, make: Make) -> None:
    make("digits", 0.5)

    def told(*arguments: str) -> object:
        shown = typed(*arguments, "--json")
        assert shown.exit_code == 0, shown.output
        return json.loads(shown.stdout)

    paused = {"study": "digits", "state": "paused", "state_before": "running"}
    assert told("study", "pause", "digits") == paused
    assert told("study", "resume", "digits") == {
        "study": "digits",
        "state": "running",
        "state_before": "paused",
    }
    assert told("trial", "rerun", "digits", "0") == {"study": "digits", "trial": 1, "repeats": 0}
    asked = told("workers", "stop", "digits")
    assert isinstance(asked, dict)
    assert asked["study"] == "digits"
    assert told("study", "delete", "digits", "--yes") == [{"study": "digits", "trials": 2}]
    upgraded = told("db", "upgrade")
    assert isinstance(upgraded, dict)
    assert upgraded["before"] == upgraded["after"]
    made = told("init", "mine")
    assert isinstance(made, dict)
    assert "README.md" in made["files"]


@pytest.mark.parametrize(
    ("path", "command"),
    [(path, command) for path, command in commands(cli) if not command.hidden],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_every_command_that_says_something_says_it_as_json_too(
    path: tuple[str, ...], command: click.Command
) -> None:
    options = {option for parameter in command.params for option in parameter.opts}
    lasting = path in (("worker", "start"), ("dashboard",))  # they serve, and have no result
    assert ("--json" in options) or lasting or path == ("study", "export")
