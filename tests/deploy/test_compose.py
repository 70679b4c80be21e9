"""What docker-compose.yml promises, read off the file; and that Compose takes it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tuner.service.interruption import GRACE_S

FILE = ROOT / "docker-compose.yml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
WORKERS = ["worker", "worker-cpu"]
SECRET = re.compile(r"pass|secret|token|key|storage|url", re.IGNORECASE)

every_service = pytest.mark.parametrize("name", SERVICES)


@pytest.mark.parametrize("profile", [None, "cpu", "gpu"])
def test_compose_takes_the_file(profile: str | None, tmp_path: Path) -> None:
    ended = docker_compose(tmp_path, profile, TUNER_STUDY="digits")
    assert ended.returncode == 0, ended.stderr


def test_compose_asks_for_the_study(tmp_path: Path) -> None:
    ended = docker_compose(tmp_path, None)
    assert ended.returncode != 0
    assert "names the study to work on: set it in .env" in ended.stderr


def docker_compose(
    folder: Path, profile: str | None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Has Compose check the file, which needs no engine, in a folder without a .env."""
    program = shutil.which("docker-compose")
    if program is None:
        pytest.skip("docker-compose is not installed (Debian: apt-get install docker-compose)")
    return subprocess.run(
        [program, "--project-directory", str(folder), "--file", str(FILE)]
        + ([f"--profile={profile}"] if profile else [])
        + ["config", "--quiet"],
        env={"PATH": "/usr/bin:/bin"} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_dashboard_alone_is_published_and_on_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"dashboard": ["127.0.0.1:${TUNER_DASHBOARD_PORT:-8080}:8080"]}
    assert not any("network_mode" in service for service in SERVICES.values())


@every_service
def test_network_of_the_database_leads_nowhere_else(name: str) -> None:
    assert COMPOSE["networks"]["storage"] == {"internal": True}
    networks = ["storage", "published"] if name == "dashboard" else ["storage"]
    assert SERVICES[name]["networks"] == networks


@every_service
def test_service_can_do_no_more_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["user"] in ("10001:10001", "postgres")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"privileged", "cap_add", "devices", "pid", "ipc", "userns_mode"}


@every_service
def test_secrets_come_from_files(name: str) -> None:
    service = SERVICES[name]
    assert service.keys().isdisjoint({"env_file", "configs"})
    given = {f"/run/secrets/{secret}" for secret in service["secrets"]}
    for variable, value in service.get("environment", {}).items():
        if SECRET.search(variable):
            assert variable.endswith("_FILE")
            assert value in given
    read = set(re.findall(r"/run/secrets/\w+", str(service)))
    assert read == given, "a service gets the secrets that it reads, and no others"


def test_secrets_lie_in_a_folder_that_neither_git_nor_the_image_takes() -> None:
    for name, secret in COMPOSE["secrets"].items():
        assert secret == {"file": f"deploy/secrets/{name}"}
    assert {"deploy/secrets/", ".env"} <= set((ROOT / ".gitignore").read_text().splitlines())
    admitted = (ROOT / ".dockerignore").read_text().splitlines()
    assert next(line for line in admitted if not line.startswith("#")) == "*"
    assert not [line for line in admitted if line.startswith(("!deploy", "!.", "!*", "!/"))]


def test_nothing_in_the_file_is_a_password_in_a_url() -> None:
    for path in (FILE, ROOT / "Dockerfile", *(ROOT / "deploy").glob("*.*")):
        for found in re.findall(r"://[^\s/@]*:([^\s/@]+)@", path.read_text()):
            assert found.startswith("$"), path.name


def test_database_keeps_its_files_and_tells_when_it_is_ready() -> None:
    database = SERVICES["database"]
    assert re.fullmatch(r"postgres:18(\.\d+)?", database["image"])
    # Of version 18 on the image has its files one folder further up.
    assert database["volumes"] == ["database:/var/lib/postgresql"]
    assert "database" in COMPOSE["volumes"]
    assert database["healthcheck"]["test"][1] == "pg_isready"


def test_services_start_once_the_tables_and_roles_are_there() -> None:
    done, healthy = "service_completed_successfully", "service_healthy"
    assert SERVICES["migrate"]["depends_on"] == {"database": {"condition": healthy}}
    assert SERVICES["roles"]["depends_on"] == {"migrate": {"condition": done}}
    for name in ("migrate", "roles"):
        assert SERVICES[name]["restart"] == "no"
    for name in (*WORKERS, "study", "dashboard"):
        assert SERVICES[name]["depends_on"] == {"roles": {"condition": done}}


def test_services_come_back_after_a_crash_and_workers_end_with_the_study() -> None:
    restarts = {name: service["restart"] for name, service in SERVICES.items()}
    once, always, until_done = "no", "unless-stopped", "on-failure"
    assert restarts == {
        **dict.fromkeys(("migrate", "roles", "study"), once),
        **dict.fromkeys(("database", "dashboard"), always),
        **dict.fromkeys(WORKERS, until_done),
    }


@pytest.mark.parametrize("name", WORKERS)
def test_workers_have_time_to_save_and_share_their_checkpoints(name: str) -> None:
    worker = SERVICES[name]
    assert float(worker["stop_grace_period"].removesuffix("s")) > GRACE_S
    assert "home:/var/lib/tuner" in worker["volumes"]
    assert "home" in COMPOSE["volumes"]


def test_a_profile_says_whether_workers_reserve_a_gpu() -> None:
    profiles = {name: service.get("profiles") for name, service in SERVICES.items()}
    assert profiles.pop("worker") == ["gpu"]
    assert profiles.pop("worker-cpu") == ["cpu"]
    assert profiles.pop("study") == ["study"]
    assert set(profiles.values()) == {None}
    [device] = SERVICES["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert "deploy" not in SERVICES["worker-cpu"]


def test_image_is_built_of_pinned_packages_and_does_not_run_as_root() -> None:
    lines = (ROOT / "Dockerfile").read_text()
    assert "--constraint constraints.txt" in lines
    *_, runtime = re.split(r"^FROM ", lines, flags=re.MULTILINE)
    assert re.findall(r"^USER (.+)$", runtime, flags=re.MULTILINE) == ["10001:10001"]
    assert re.findall(r"^ARG (\w+)", lines, flags=re.MULTILINE) == ["PYTHON"]


def test_image_finds_what_it_copies() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    admitted = (ROOT / ".dockerignore").read_text().splitlines()
    for arguments in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, flags=re.MULTILINE):
        *sources, _ = arguments.split()
        for source in sources:
            assert Path(ROOT / source).exists()
            assert f"!{source}" in admitted
