"""Clients that are slow on purpose, against the rules for them and against the real dashboard."""

from __future__ import annotations

import contextlib
import errno
import http.client
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tuner.service.web import server as web
from tuner.service.web.connections import Connections, affordable_places
from tuner.service.web.server import Place, Server
from tuner.store import open_database

PASSWORD = "correct horse battery"  # noqa: S105
BEGINNINGS = [
    b"",
    b"GET /api/stu",
    b"GET /api/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ",
    b"POST /api/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999\r\n\r\n{",
]

Start = Callable[[], Server]


class Clients:
    """Pairs of sockets, one end a server's; and a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pairs: list[tuple[socket.socket, socket.socket]] = []

    def connect(self, connections: Connections) -> tuple[socket.socket, socket.socket]:
        ours, theirs = socket.socketpair()
        theirs.settimeout(10)
        self.pairs.append((ours, theirs))
        connections.add(ours)
        return ours, theirs


@pytest.fixture
def clients() -> Iterator[Clients]:
    made = Clients()
    yield made
    for pair in made.pairs:
        for end in pair:
            end.close()


def is_open(theirs: socket.socket) -> bool:
    """Tells whether the server's end has not been shut."""
    theirs.setblocking(False)
    try:
        return theirs.recv(1) != b""
    except BlockingIOError:
        return True


def test_first_of_those_still_sending_gives_way(clients: Clients) -> None:
    connections = Connections(3, 60)
    answered, asked = clients.connect(connections)
    asked.sendall(b"all")
    assert connections.receive_into(answered, memoryview(bytearray(8))) == 3
    slow, waits = clients.connect(connections)
    _, comes_later = clients.connect(connections)
    threading.Timer(0.1, connections.remove, [slow]).start()  # as its thread does, once woken
    assert connections.make_room(10)
    assert not is_open(waits)
    assert is_open(asked)
    assert is_open(comes_later)


def test_nobody_who_is_being_answered_gives_way(clients: Clients) -> None:
    connections = Connections(1, 60)
    answered, asked = clients.connect(connections)
    asked.sendall(b"all")
    connections.receive_into(answered, memoryview(bytearray(8)))
    assert not connections.make_room(0.01)
    assert is_open(asked)
    connections.remove(answered)
    assert connections.make_room(0)


def test_request_has_to_arrive_within_a_while_however_it_drips(clients: Clients) -> None:
    connections = Connections(9, 30, clock=lambda: clients.now)
    dripping, sends = clients.connect(connections)
    reader = threading.Thread(target=read_all, args=(connections, dripping))
    reader.start()
    _, silent = clients.connect(connections)
    for clients.now in (10, 20, 30):
        sends.sendall(b"x")
        connections.end_late()
        assert is_open(silent)
    clients.now = 31
    # Just then it may be looked at between two bytes, and is another moment later.
    while reader.is_alive():
        connections.end_late()
        reader.join(0.01)
    assert not is_open(sends)
    assert not is_open(silent)


def read_all(connections: Connections, ours: socket.socket) -> None:
    while connections.receive_into(ours, memoryview(bytearray(8))):
        pass


@pytest.mark.parametrize(("limit", "places"), [(64, 16), (256, 64), (1024, 128), (2, 1), (-1, 128)])
def test_places_leave_descriptors_for_answers(
    monkeypatch: pytest.MonkeyPatch, limit: int, places: int
) -> None:
    monkeypatch.setattr(os, "sysconf", lambda name: limit)
    assert affordable_places() == places


@pytest.fixture
def start() -> Iterator[Start]:
    """Returns what serves an application that answers everything with 200."""
    servers: list[Server] = []

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"whole"]

    def serve() -> Server:
        servers.append(Server(Place("127.0.0.1", "127.0.0.1"), 0, application))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,)).start()
        return servers[-1]

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_dripping_client_is_closed(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_PATIENCE_S", 0.3)
    server = start()
    with socket.create_connection(("127.0.0.1", server.server_port)) as client:
        client.sendall(BEGINNINGS[2])
        client.settimeout(0.02)
        for _ in range(1000):
            try:
                client.sendall(b"x")
                assert client.recv(1) == b""
                break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        else:
            pytest.fail("it goes on for ever")
    while len(server.connections):
        time.sleep(0.01)


def test_half_a_head_is_no_request(start: Start) -> None:
    server = start()
    for beginning, answer in [(BEGINNINGS[2], b""), (BEGINNINGS[2] + b"\r\n\r\n", b"whole")]:
        with socket.create_connection(("127.0.0.1", server.server_port), 20) as client:
            client.sendall(beginning)
            client.shutdown(socket.SHUT_WR)
            assert client.makefile("rb").read().rpartition(b"\r\n")[2] == answer


def test_a_head_without_end_is_given_up(start: Start) -> None:
    server = start()
    with socket.create_connection(("127.0.0.1", server.server_port), 20) as client:
        client.sendall(b"GET / HTTP/1.1\r\n")
        with contextlib.suppress(ConnectionError):
            for number in range(98):
                client.sendall(b"X-%d: %s\r\n" % (number, b"x" * 60_000))
            client.sendall(b"\r\n")
            assert client.recv(1) == b""
    while len(server.connections):
        time.sleep(0.01)


def test_server_without_descriptors_takes_its_time(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = 0

    def fail(server: Server) -> None:
        nonlocal failures
        failures += 1
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr("socketserver.TCPServer.get_request", fail)
        server = start()
        with socket.create_connection(("127.0.0.1", server.server_port), 20) as client:
            time.sleep(1)
            patched.undo()
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert client.makefile("rb").read().endswith(b"whole")
    assert 0 < failures < 20


@pytest.fixture
def attacked(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    """Starts the dashboard with few file descriptors."""
    open_database(f"sqlite:///{project / 'tuner.db'}", create=True).close()
    monkeypatch.delenv("TUNER_DASHBOARD_PASSWORD_FILE", raising=False)
    monkeypatch.setenv("TUNER_DASHBOARD_PASSWORD", PASSWORD)
    few = ["sh", "-c", 'ulimit -n 64 && exec "$0" "$@"']
    with subprocess.Popen(
        [*few, sys.executable, "-m", "tuner", "dashboard", "--port", "0"],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Gives the attackers enough file descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1024), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def ask(port: int) -> int:
    """Returns the status of an honest request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, 10)
    connection.request("GET", "/api/studies", headers={"Authorization": f"Bearer {PASSWORD}"})
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.slow
@pytest.mark.usefixtures("descriptors")
def test_however_many_send_by_halves_the_dashboard_answers(attacked: subprocess.Popen[str]) -> None:
    assert attacked.stdout is not None
    port = int(attacked.stdout.readline().split("http://127.0.0.1:")[1].split("/")[0])
    assert ask(port) == 200
    with contextlib.ExitStack() as stack:
        attackers = []
        for number in range(300):
            attacker = socket.create_connection(("127.0.0.1", port), 10)
            attackers.append(stack.enter_context(attacker))
            attacker.sendall(BEGINNINGS[number % len(BEGINNINGS)])
        for _ in range(3):
            for attacker in attackers:
                with contextlib.suppress(ConnectionError):
                    attacker.sendall(b"x")
            assert ask(port) == 200
        process = psutil.Process(attacked.pid)
        before = process.cpu_times()
        time.sleep(2)
        after = process.cpu_times()
        assert after.user + after.system - before.user - before.system < 0.5
        assert ask(port) == 200
    assert ask(port) == 200
    attacked.send_signal(signal.SIGTERM)
    assert attacked.communicate(timeout=30) == ("", "")
    assert attacked.returncode == 0
