"""The services of docker-compose.yml, run outside containers: their commands, on their secrets."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
import yaml

from tests.conftest import ROOT, run_on

SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


class Machine:
    """Stands in for the machine of the services: what their containers would find where.

    Args:
        project: The image's working directory.
        postgres_url: An empty database of the server that stands in for ``database``.
    """

    def __init__(self, project: Path, postgres_url: str) -> None:
        self._project = project
        self.secrets = project / "secrets"
        subprocess.run([ROOT / "deploy" / "make-secrets", self.secrets], check=True)
        server = sa.make_url(postgres_url)
        self._database, self._host = str(server.database), str(server.query["host"])
        for file in self.secrets.glob("*_url"):
            url = sa.make_url(file.read_text().strip())
            assert (url.host, url.database) == ("database", "tuner")
            there = url.set(host=None, database=self._database, query=dict(server.query))
            file.chmod(0o644)
            file.write_text(there.render_as_string(hide_password=False))

    def secret(self, name: str) -> str:
        return (self.secrets / name).read_text().strip()

    def start(
        self, service: str, *arguments: str, extra: tuple[str, ...] = ()
    ) -> subprocess.Popen[str]:
        """Starts a service; arguments stand in for its command, extra ones are added."""
        described = SERVICES[service]
        command = [*described.get("entrypoint", ["tuner"]), *(arguments or described["command"])]
        command = [self._outside(word) for word in (*command, *extra)]
        if command[0] == "tuner":
            command[:1] = [sys.executable, "-m", "tuner"]
        environment = described.get("environment", {})
        return subprocess.Popen(
            command,
            cwd=self._project,
            env=os.environ
            | {"TUNER_HOME": str(self._project / "home"), "PYTHONUNBUFFERED": "1"}
            | {name: self._outside(value) for name, value in environment.items()},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, service: str, *arguments: str, extra: tuple[str, ...] = ()) -> str:
        """Runs a service to its end and returns what it said."""
        process = self.start(service, *arguments, extra=extra)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
        return output

    def _outside(self, word: str) -> str:
        """Returns a word of the file as a service's process gets it, with the places of here."""
        word = re.sub(r"\$\{TUNER_STUDY:\?[^}]*\}", "parabola", word)
        word = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", word).replace("$$", "$")
        word = word.replace("--host=database", f"--host={self._host}")
        word = word.replace("--dbname=tuner", f"--dbname={self._database}")
        word = word.replace("/roles.sql", str(ROOT / "deploy" / "roles.sql"))
        return word.replace("/run/secrets", str(self.secrets))


@pytest.fixture
def machine(project: Path, postgres_server: str, postgres_url: str) -> Iterator[Machine]:
    """Returns a machine whose database asks everyone but its superuser for a password."""
    machine = Machine(project, postgres_url)
    name = sa.make_url(postgres_url).database
    engine = sa.create_engine(postgres_server)
    with engine.connect() as connection:
        access = Path(connection.exec_driver_sql("SHOW hba_file").scalar_one())
    engine.dispose()
    # As the image makes them: the owner is a superuser.
    run_on(
        postgres_server,
        f"CREATE ROLE tuner_owner SUPERUSER LOGIN PASSWORD '{machine.secret('owner_password')}'",
    )
    run_on(postgres_server, f"ALTER DATABASE {name} OWNER TO tuner_owner")
    admits_all = access.read_text()
    asks = "tuner_owner,tuner_worker,tuner_dashboard"
    access.write_text(f"local {name} {asks} scram-sha-256\n{admits_all}")
    run_on(postgres_server, "SELECT pg_reload_conf()")
    yield machine
    access.write_text(admits_all)
    run_on(postgres_server, "SELECT pg_reload_conf()")
    run_on(postgres_server, f"ALTER DATABASE {name} OWNER TO CURRENT_USER")
    run_on(postgres_url, "DROP OWNED BY tuner_owner CASCADE")
    run_on(postgres_server, "DROP ROLE tuner_owner")


@pytest.mark.slow
def test_services_take_a_study_to_its_end_and_show_it_to_those_with_the_password(
    machine: Machine,
) -> None:
    assert "has its tables now" in machine.run("migrate")
    machine.run("roles")
    # At the next `up` both run again.
    assert "already" in machine.run("migrate")
    machine.run("roles")

    small = ("--set=budget.trials=4", "--set=budget.epochs=1")
    machine.run("study", "create", "studies/parabola.toml", *small)
    machine.run("worker-cpu")
    # Nothing is left for the service of a machine with GPUs.
    machine.run("worker", extra=("--devices=cpu",))
    counts = json.loads(machine.run("study", "report", "parabola", "--json"))["counts"]
    unfinished = counts["running"] + counts["waiting"]
    assert (sum(counts.values()), unfinished, counts["failed"]) == (4, 0, 0)

    dashboard = machine.start("dashboard", extra=("--port=0",))
    try:
        assert dashboard.stdout is not None
        said = []
        for line in dashboard.stdout:
            said.append(line)
            if "http://" in line:
                break
        address = re.search(r"http://[^/ ]+:(\d+)/", "".join(said))
        assert address, said
        url = f"http://127.0.0.1:{address[1]}/"
        assert status(url, None) == status(url, "wrong") == 401
        assert status(url, machine.secret("login_password")) == 200
    finally:
        dashboard.terminate()
        rest, _ = dashboard.communicate(timeout=60)
    assert machine.secret("login_password") not in rest


def status(url: str, password: str | None) -> int:
    """Returns how the dashboard answers who asks for the studies."""
    request = urllib.request.Request(f"{url}api/studies")  # noqa: S310
    if password is not None:
        named = base64.b64encode(f"anyone:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {named}")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_secrets_are_made_once_and_lie_where_others_cannot_enter(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    said = [
        subprocess.run(
            [ROOT / "deploy" / "make-secrets", folder], check=True, capture_output=True, text=True
        ).stdout
        for _ in range(2)
    ]
    names = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["secrets"]
    assert {file.name for file in folder.iterdir()} == set(names)
    assert (said[0].count("Made "), said[1]) == (len(names), "")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o444}
    passwords = {file.read_text() for file in folder.glob("*_password")}
    assert len(passwords) == 4
    assert all(re.fullmatch(r"[0-9a-f]{48}\n", password) for password in passwords)
    assert not any(password.strip() in said[0] for password in passwords)
