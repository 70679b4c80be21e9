"""The real dashboard, spoken to over HTTP."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

from tests.conftest import MakeSpec
from tuner.domain.trials import decode
from tuner.errors import DamageWarning, SpecError, StorageError
from tuner.report.markdown import to_card
from tuner.service.dashboard.application import make_dashboard
from tuner.service.dashboard.notes import compose, strip
from tuner.service.interruption import Interruption
from tuner.service.summaries import read_results
from tuner.service.web.server import Place, Server, listen
from tuner.service.worker.worker import Worker
from tuner.store import Database, Studies, StudyHandle, read_records

PASSWORD = "corréct horse battery"  # noqa: S105

LOOPBACK = Place("127.0.0.1", "127.0.0.1")

ENDPOINTS = [
    ("GET", "/"),
    ("GET", "/dashboard"),
    ("GET", "/dashboard/studies/1"),
    ("GET", "/api/meta"),
    ("GET", "/api/studies"),
    ("GET", "/api/studies/1"),
    ("GET", "/csv/1"),
    ("GET", "/static/bundle.js"),
    ("GET", "/favicon.ico"),
    ("GET", "/nothing-here"),
    ("HEAD", "/dashboard"),
    ("OPTIONS", "/api/studies"),
    ("TRACE", "/api/studies"),
    ("POST", "/api/studies"),
    ("POST", "/api/studies/1/rename"),
    ("POST", "/api/trials/1/tell"),
    ("PUT", "/api/studies/1/note"),
    ("PATCH", "/api/studies/1"),
    ("DELETE", "/api/studies/1"),
    ("DELETE", "/api/studies/1/preference/x"),
]


@dataclass(frozen=True)
class Answer:
    """What the dashboard answered."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


Ask = Callable[..., Answer]
Listen = Callable[..., Ask]


@pytest.fixture
def listening(database: Database) -> Iterator[Listen]:
    """Returns what starts the dashboard and returns what asks it."""
    servers: list[Server] = []

    def start(place: Place = LOOPBACK, **options: object) -> Ask:
        server = listen(lambda: make_dashboard(database), place, 0, **options)  # type: ignore[arg-type]
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        servers.append(server)

        def ask(
            method: str,
            path: str,
            headers: dict[str, str] | None = None,
            body: str | None = None,
            source: str = "127.0.0.1",
        ) -> Answer:
            connection = http.client.HTTPConnection(
                "127.0.0.1", server.server_port, 60, (source, 0)
            )
            given = {"Host": f"127.0.0.1:{server.server_port}"} | (headers or {})
            given = {
                key: value.replace("PORT", str(server.server_port)) for key, value in given.items()
            }
            connection.request(method, path, body, given)
            answer = connection.getresponse()
            read = Answer(answer.status, answer.headers, answer.read())
            connection.close()
            return read

        return ask

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def basic(password: str, user: str = "anyone") -> dict[str, str]:
    """Returns the header a browser sends."""
    encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {encoded}"}


def bearer(token: str) -> dict[str, str]:
    """Returns the header a script sends."""
    return {"Authorization": f"Bearer {token.encode().decode('latin-1')}"}


def names(database: Database) -> list[str]:
    return optuna.get_all_study_names(database.storage)


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
def test_no_endpoint_answers_without_the_password(
    listening: Listen, database: Database, study: StudyHandle, method: str, path: str
) -> None:
    ask = listening(password=PASSWORD)
    body = '{"study_name": "new", "directions": ["minimize"]}'
    for headers in ({}, basic("wrong" * 4), bearer("wrong" * 4), basic(""), bearer("")):
        answer = ask(method, path, headers | {"Content-Type": "application/json"}, body)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith('Basic realm="tuner"')
        assert b"bundle" not in answer.body
    assert names(database) == [study.name]


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
def test_no_endpoint_answers_pages_of_other_sites(
    listening: Listen, database: Database, study: StudyHandle, method: str, path: str
) -> None:
    ask = listening(password=PASSWORD)
    for headers in (
        {"Host": "evil.example"},
        {"Host": "evil.example:PORT"},
        {"Host": ""},
        {"Host": "127.0.0.1@evil.example"},
        {"Host": "localhost.evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://localhost:1"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:PORT@evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:PORT"},
    ):
        assert ask(method, path, headers | basic(PASSWORD)).status == 403
    assert names(database) == [study.name]


@pytest.mark.parametrize("header", [basic(PASSWORD), basic(PASSWORD, ""), bearer(PASSWORD)])
def test_who_knows_the_password_reads_and_deletes(
    listening: Listen, database: Database, study: StudyHandle, header: dict[str, str]
) -> None:
    ask = listening(password=PASSWORD)
    summaries = json.loads(ask("GET", "/api/studies", header).body)["study_summaries"]
    assert [summary["study_name"] for summary in summaries] == [study.name]
    assert ask("GET", "/dashboard", header).status == 200
    own = {"Origin": "http://127.0.0.1:PORT", "Sec-Fetch-Site": "same-origin"}
    assert ask("DELETE", f"/api/studies/{study.study_id}", header | own).status == 204
    assert names(database) == []


@pytest.mark.parametrize(
    "header",
    [
        "Basic",
        "Basic !!!",
        f"Basic {PASSWORD.encode().decode('latin-1')}",
        f"Digest {PASSWORD.encode().decode('latin-1')}",
        f"Bearer {PASSWORD.encode().decode('latin-1')}x",
        "Basic " + base64.b64encode(PASSWORD.encode()).decode(),  # no user name, so no password
        "Basic " + base64.b64encode(b"a:").decode(),
    ],
)
def test_header_of_another_form_is_a_wrong_password(listening: Listen, header: str) -> None:
    assert listening(password=PASSWORD)("GET", "/", {"Authorization": header}).status == 401


def test_loopback_asks_for_no_password_unless_there_is_one(
    listening: Listen, study: StudyHandle
) -> None:
    ask = listening()
    assert ask("GET", "/api/studies").status == 200
    assert ask("GET", "/api/studies", {"Host": "localhost:PORT"}).status == 200
    assert ask("DELETE", f"/api/studies/{study.study_id}", {"Host": "evil.example"}).status == 403
    assert ask("DELETE", f"/api/studies/{study.study_id}").status == 204


def test_link_on_another_site_opens_the_dashboard_but_not_in_its_frame(listening: Listen) -> None:
    clicked = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    answer = listening()("GET", "/dashboard", clicked)
    assert answer.status == 200
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_form_on_another_site_is_no_link(listening: Listen, database: Database) -> None:
    sent = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert listening()("POST", "/api/studies", sent, "{}").status == 403


def test_too_many_wrong_passwords_are_told_to_wait_and_the_right_one_too(
    listening: Listen,
) -> None:
    ask = listening(password=PASSWORD)
    assert [ask("GET", "/", basic(f"guess {n}")).status for n in range(10)] == [401] * 10
    for header in (basic("guess"), basic(PASSWORD), bearer(PASSWORD)):
        answer = ask("DELETE", "/api/studies/1", header)
        assert answer.status == 429
        assert 0 < int(answer.headers["Retry-After"]) <= 60
    # Who has not tried yet is asked for the password as ever.
    assert ask("GET", "/").status == 401


def test_guesses_made_at_once_are_counted_like_any_others(listening: Listen) -> None:
    ask = listening(password=PASSWORD)
    statuses: list[int] = []

    def guess() -> None:
        statuses.append(ask("GET", "/", basic("guess")).status)

    threads = [threading.Thread(target=guess) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [401] * 10 + [429] * 20


def test_wrong_passwords_from_elsewhere_do_not_keep_the_right_one_out(listening: Listen) -> None:
    ask = listening(password=PASSWORD)
    for _ in range(15):
        ask("GET", "/", basic("guess"), source="127.0.0.2")
    assert ask("GET", "/api/studies", basic(PASSWORD), source="127.0.0.2").status == 429
    assert ask("GET", "/api/studies", basic(PASSWORD)).status == 200


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1", "10.1.2.3", "fe80::1"])  # noqa: S104
def test_nothing_but_loopback_is_served_without_a_password(
    database: Database, address: str
) -> None:
    with pytest.raises(SpecError, match=f"--host {address}.*--password-file PATH"):
        listen(lambda: make_dashboard(database), Place.find(address), 0)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.0.0.2", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104
        ("0", False),
        ("::", False),
    ],
)
def test_loopback_is_told_by_the_address_a_name_stands_for(host: str, loopback: bool) -> None:
    assert Place.find(host).is_loopback is loopback


def test_host_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SpecError, match=r"--host no\.such\.invalid: there is no such host"):
        Place.find("no.such.invalid")


def test_port_that_is_taken_is_told(database: Database) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StorageError, match=f"--port {port}: cannot listen there"):
            listen(lambda: make_dashboard(database), LOOPBACK, port)


def test_every_address_answers_by_its_own_name_and_by_the_allowed_ones(listening: Listen) -> None:
    ask = listening(
        Place("0.0.0.0", "0.0.0.0"),  # noqa: S104
        password=PASSWORD,
        hosts=("Tuner.example",),
    )
    for host in ("127.0.0.1:PORT", "localhost", "tuner.example", "TUNER.example.:443"):
        assert ask("GET", "/api/studies", basic(PASSWORD) | {"Host": host}).status == 200
    for host in ("192.0.2.7:PORT", "other.example", "example"):
        assert ask("GET", "/api/studies", basic(PASSWORD) | {"Host": host}).status == 403


def test_proxy_with_tls_in_front_may_write(listening: Listen, study: StudyHandle) -> None:
    ask = listening(password=PASSWORD, hosts=("tuner.example",))
    through = {
        "Host": "tuner.example",
        "Origin": "https://tuner.example",
        "Sec-Fetch-Site": "same-origin",
    }
    assert ask("DELETE", f"/api/studies/{study.study_id}", basic(PASSWORD) | through).status == 204


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
def test_ipv6_is_served_too(database: Database) -> None:
    try:
        server = listen(lambda: make_dashboard(database), Place("::1", "::1"), 0)
    except StorageError as error:
        pytest.skip(str(error))
    with server:
        assert server.url == f"http://[::1]:{server.server_port}/"


def test_client_that_leaves_in_the_middle_leaves_no_trace(
    listening: Listen, capfd: pytest.CaptureFixture[str], make_spec: MakeSpec, database: Database
) -> None:
    ask = listening(password=PASSWORD)
    Studies(database).create(make_spec())
    large = ask("POST", "/api/studies", {"Content-Length": "1000000000"} | basic("wrong"), "")
    assert large.status == 401
    endless = ask("POST", "/api/studies", {"Content-Length": "9" * 5000} | basic("wrong"), "")
    assert endless.status == 401
    assert ask("GET", "/api/studies", basic(PASSWORD)).status == 200
    assert capfd.readouterr().err == ""


@pytest.fixture
def finished(project: Path, database: Database, make_spec: MakeSpec) -> StudyHandle:
    """Returns a study of four trials that has been trained."""
    study = Studies(database).create(make_spec(budget={"trials": 4, "steps": 20}))
    Worker(database, study, torch.device("cpu"), Interruption(), time.monotonic()).run()
    return study


def attributes_of(shown: dict[str, Any]) -> dict[str, str]:
    return {each["key"]: each["value"] for each in shown["user_attrs"]}


def test_page_of_a_study_has_its_answer_and_trials_in_torch_s_terms(
    listening: Listen, database: Database, finished: StudyHandle
) -> None:
    ask = listening()
    page = json.loads(ask("GET", f"/api/studies/{finished.study_id}").body)
    answer = to_card(read_results(database, finished))
    assert page["note"] == {"version": 0, "body": compose(answer, "")}
    figures = {
        each["id"]: json.loads(each["graph_object"]) for each in page["plotly_graph_objects"]
    }
    assert figures["tuner-learning-rates"]["data"][0]["x"]
    assert attributes_of(page)["workload"] == finished.spec.study.workload
    assert not [key for key in attributes_of(page) if key.startswith("tuner:")]
    for record, shown in zip(read_records(database, finished), page["trials"], strict=True):
        told = attributes_of(shown)
        assert told["ended"].startswith(record.outcome.value)
        assert float(told["lr"]) == decode(finished.spec, record.proposal).optimizer_values["lr"]
        assert told["device"] == "cpu"
        assert told["seed"] == "0"
        assert "config" in told["bookkeeping"]
        assert "config" not in told
    assert [attributes_of(best) for best in page["best_trials"]]
    listed = json.loads(ask("GET", "/api/studies").body)["study_summaries"]
    assert [each["study_name"] for each in listed] == [finished.name]


def test_a_page_fits_on_a_phone_and_what_is_no_page_is_left_alone(
    listening: Listen, finished: StudyHandle
) -> None:
    ask = listening()
    page = ask("GET", f"/dashboard/studies/{finished.study_id}/note").body
    assert page.count(b"main{min-width:0}</style></head>") == 1
    assert page.rstrip().endswith(b"</html>")
    assert b"min-width" not in ask("GET", "/api/studies").body


def test_note_that_a_person_writes_stays_below_the_answer(
    listening: Listen, database: Database, finished: StudyHandle
) -> None:
    ask, path = listening(), f"/api/studies/{finished.study_id}"

    def save(body: str, version: int) -> int:
        given = json.dumps({"body": body, "version": version})
        return ask("PUT", f"{path}/note", {"Content-Type": "application/json"}, given).status

    def note() -> dict[str, Any]:
        found = json.loads(ask("GET", path).body)["note"]
        assert isinstance(found, dict)
        return found

    mine = "x" * 3000 + "\n\n*mine*"
    assert save(note()["body"] + mine, 1) == 204
    assert note()["version"] == 1
    assert strip(note()["body"]) == mine
    assert note()["body"].count("**Use ") == 1
    assert save("a race", 1) == 409
    assert save("only mine", 2) == 204
    assert strip(note()["body"]) == "only mine"
    assert note()["body"].startswith("**Use ")
    assert save("", 3) == 204
    assert strip(note()["body"]) == ""


def test_study_renamed_in_the_dashboard_keeps_all_that_is_stored(
    listening: Listen, database: Database, finished: StudyHandle
) -> None:
    before = read_records(database, finished)
    stored = database.storage.get_study_user_attrs(finished.study_id)
    ask, json_type = listening(), {"Content-Type": "application/json"}
    ask("GET", f"/api/studies/{finished.study_id}")
    path = f"/api/studies/{finished.study_id}/rename"
    renamed = ask("POST", path, json_type, '{"study_name": "b"}')
    assert renamed.status == 201
    study = Studies(database).find("b")
    assert read_records(database, study) == before
    assert database.storage.get_study_user_attrs(study.study_id) == stored
    page = json.loads(ask("GET", f"/api/studies/{study.study_id}").body)
    assert page["note"]["body"].count("**Use ") == 1


def test_studies_that_tuner_did_not_make_are_shown_as_they_are(
    listening: Listen, database: Database
) -> None:
    other = optuna.create_study(storage=database.storage, study_name="other")
    other.set_user_attr("mine", 1)
    other.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    page = json.loads(listening()("GET", f"/api/studies/{other._study_id}").body)
    assert attributes_of(page) == {"mine": "1"}
    assert page["note"] == {"version": 0, "body": ""}
    assert [attributes_of(shown) for shown in page["trials"]] == [{}]


@pytest.mark.parametrize("key", ["tuner:spec", "tuner:uuid", "tuner:state"])
def test_page_of_a_damaged_study_is_answered(
    listening: Listen, database: Database, finished: StudyHandle, key: str
) -> None:
    database.storage.set_study_user_attr(finished.study_id, key, "x")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamageWarning)
        answer = listening()("GET", f"/api/studies/{finished.study_id}")
    assert answer.status == 200
    assert len(json.loads(answer.body)["trials"]) == 4
