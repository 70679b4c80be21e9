"""The way through the house: create, run, look, report, export, extend, delete."""

from __future__ import annotations

import json
import os
import pty
import re
import runpy
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import torch

from tests.conftest import copy_project, run_tuner

Tuner = Callable[..., subprocess.CompletedProcess[str]]

_SMALL = ("--set", "budget.trials=12", "--set", "budget.epochs=2")


def report(typed: Tuner, name: str) -> dict[str, object]:
    ended = typed("study", "report", name, "--format", "json")
    assert ended.returncode == 0, ended.stderr
    parsed: dict[str, object] = json.loads(ended.stdout)
    return parsed


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Returns a project in which a study was run, once for all who only look at it."""
    folder = copy_project(tmp_path_factory.mktemp("trained") / "project")
    ended = run_tuner("run", "studies/parabola.toml", *_SMALL, cwd=folder)
    assert ended.returncode == 0, ended.stderr
    return folder, ended


@pytest.fixture
def parabola(
    project: Path, trained: tuple[Path, subprocess.CompletedProcess[str]]
) -> subprocess.CompletedProcess[str]:
    folder, ended = trained
    shutil.copytree(folder, project, dirs_exist_ok=True)
    return ended


def test_run_trains_the_budget_and_ends_in_the_report(
    tuner: Tuner, typed: Tuner, project: Path, parabola: subprocess.CompletedProcess[str]
) -> None:
    assert "\x1b" not in parabola.stdout + parabola.stderr
    assert "\r" not in parabola.stdout + parabola.stderr
    assert parabola.stderr.count("\ntrial ") == 12
    assert "Use " in parabola.stdout
    assert "12 of 12" in parabola.stdout

    found = report(typed, "parabola")
    assert set(found) >= {
        "study", "workload", "metric", "direction", "storage", "budget", "counts", "best",
        "optimizers", "wall_s", "training_s", "trials_per_hour", "steps_per_s",
    }  # fmt: skip
    counts = found["counts"]
    assert isinstance(counts, dict)
    assert set(counts) == {
        "complete",
        "pruned",
        "diverged",
        "failed",
        "running",
        "waiting",
        "paused",
    }
    assert sum(counts.values()) == 12
    assert counts["running"] == counts["waiting"] == 0
    optimizers = found["optimizers"]
    assert isinstance(optimizers, list)
    values = [row["best_value"] for row in optimizers if row["best_value"] is not None]
    assert values == sorted(values)
    best = found["best"]
    assert isinstance(best, dict)
    assert best["value"] == values[0]
    assert best["optimizer"] == optimizers[0]["optimizer"]

    # The same command again has nothing to do, and says the same.
    again = tuner("run", "studies/parabola.toml", *_SMALL)
    assert again.returncode == 0
    assert report(typed, "parabola")["best"] == best

    # A larger budget extends the study; the file, which asks for less or for more, then says so.
    extended = tuner("run", "studies/parabola.toml", *_SMALL, "--set", "budget.trials=14")
    assert "budget of 14 trials" in extended.stderr
    assert "14 of 14" in extended.stdout
    (project / "less.toml").write_text(
        (project / "studies/parabola.toml").read_text().replace("trials = 60", "trials = 9")
    )
    less = ("run", "less.toml", "--name", "parabola", "--set", "budget.epochs=2")
    kept = tuner(*less)
    assert kept.returncode == 0, kept.stderr
    assert "stays at 14 trials (the file says 9 trials; to lower it: --set" in kept.stderr
    assert "14 of 14" in kept.stdout


def test_every_view_of_a_study_tells_of_it(
    typed: Tuner, project: Path, parabola: subprocess.CompletedProcess[str]
) -> None:
    listed = json.loads(typed("study", "list", "--json").stdout)
    assert [(row["name"], row["started"], row["running"]) for row in listed] == [
        ("parabola", 12, 0)
    ]
    assert re.search("parabola .* done .* 12/12 ", typed("study", "list").stdout)
    shown = json.loads(typed("study", "show", "parabola", "--json").stdout)
    assert len(shown["trials"]) == 12
    assert shown["spec"]["optimizer"]["adam"]["lr"] == {"low": 1e-4, "high": 0.3, "log": True}
    short = typed("study", "show", "parabola").stdout
    assert re.search("trials +12 of 12: ", short)
    assert "tuner trial list parabola" in short
    assert len(short.splitlines()) < 25
    assert "[optimizer.adam" in typed("study", "show", "parabola", "--spec").stdout
    last = json.loads(typed("trial", "show", "parabola", "11", "--json").stdout)
    assert last["preset"] == "default"
    assert "its own defaults" in typed("trial", "show", "parabola", "11").stdout
    first = json.loads(typed("trial", "show", "parabola", "0", "--json").stdout)
    assert first["preset"] in (None, "portfolio")
    missing = typed("trial", "show", "parabola", "99")
    assert (missing.returncode, "no trial 99" in missing.stderr) == (2, True)

    markdown = typed("study", "report", "parabola", "--format", "markdown").stdout
    assert markdown.startswith("# parabola\n")
    page = typed("study", "report", "parabola", "--format", "html", "--output", "report.html")
    assert page.returncode == 0, page.stderr
    html = (project / "report.html").read_text()
    assert 'id="chart-rates"' in html
    assert 'id="chart-timeline"' in html
    assert "worker 1 on cpu" in html
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", html)

    deleted = typed("study", "delete", "parabola", "--yes")
    assert deleted.returncode == 0, deleted.stderr
    assert json.loads(typed("study", "list", "--json").stdout) == []
    assert not any((project / ".tuner").rglob("*.log"))


@pytest.mark.slow
def test_page_is_written_to_a_file_of_the_study_s_name_and_shown(
    typed: Tuner, project: Path, parabola: subprocess.CompletedProcess[str]
) -> None:
    browser = project / "browser"
    browser.write_text('#!/bin/sh\nprintf %s "$1" >shown\n')
    browser.chmod(0o755)
    command = [sys.executable, "-m", "tuner", "study", "report", "parabola", "--format", "html"]
    leader, follower = pty.openpty()
    ended = subprocess.run(command, stdout=follower, stderr=subprocess.PIPE, check=True, text=True)
    os.close(leader)
    os.close(follower)
    assert ended.stderr == "Wrote parabola.html\n"
    page = project / "parabola.html"
    assert page.read_text().startswith("<!doctype html>")
    page.unlink()

    shown = os.environ | {"BROWSER": f"{browser} %s"}
    subprocess.run([*command, "--open"], env=shown, check=True, capture_output=True)
    assert (project / "shown").read_text() == page.resolve().as_uri()
    refused = typed("study", "report", "parabola", "--open")
    assert (refused.returncode, "--format html" in refused.stderr) == (2, True)


@pytest.mark.slow
def test_exported_winner_rebuilds_what_the_report_says(
    tuner: Tuner, typed: Tuner, project: Path, parabola: subprocess.CompletedProcess[str]
) -> None:
    best = report(typed, "parabola")["best"]
    assert isinstance(best, dict)
    exported = tuner("study", "export", "parabola", "--output", "winner.py")
    assert exported.returncode == 0, exported.stderr
    by_itself = subprocess.run(
        [sys.executable, "-I", "winner.py"], capture_output=True, text=True, check=True
    )
    assert "lr: first" in by_itself.stdout
    module = runpy.run_path("winner.py")
    model = torch.nn.Linear(2, 2)
    build = module.get("build_optimizer") or module["build_optimizers"]
    built = build(model)
    optimizer = built[0] if isinstance(built, list) else built
    assert optimizer.defaults["lr"] == best["params"]["lr"]

    again = tuner("study", "export", "parabola", "--format", "toml", "--output", "winner.toml")
    assert again.returncode == 0, again.stderr
    ran = tuner("run", "winner.toml", "--name", "again")
    assert ran.returncode == 0, ran.stderr
    repeated = report(typed, "again")["best"]
    assert isinstance(repeated, dict)
    assert repeated["value"] == best["value"]
    winner = json.loads(tuner("study", "export", "parabola", "--format", "json").stdout)
    assert winner["value"] == best["value"]


def test_workloads_are_found_and_checked(typed: Tuner, project: Path) -> None:
    (project / "models" / "broken.py").write_text(
        "from models.parabola import Parabola\n\n\n"
        "class Broken(Parabola):\n"
        "    def loss(self, model, batch):\n"
        "        raise ZeroDivisionError('nothing to divide by')\n"
    )
    for downloads in ("mnist.py", "cifar10.py"):
        (project / "models" / downloads).unlink()
    ended = typed("workloads", "--json")
    checks = {check["workload"]: check for check in json.loads(ended.stdout)}
    assert ended.returncode == 1
    assert checks["models.digits:Digits"]["error"] is None
    assert checks["models.digits:Digits"]["parameters"] == 64 * 64 + 64 + 64 * 10 + 10
    assert "nothing to divide by" in checks["models.broken:Broken"]["error"]


def test_failed_trial_keeps_its_traceback_and_the_run_tells_why(
    tuner: Tuner, typed: Tuner, project: Path
) -> None:
    (project / "models" / "late.py").write_text(
        "import torch\n"
        "from models.parabola import Parabola\n\n\n"
        "class Late(Parabola):\n"
        "    steps = 0\n\n"
        "    def loss(self, model, batch):\n"
        "        Late.steps += torch.is_grad_enabled()\n"
        "        if Late.steps > 3:\n"
        "            raise ValueError('the data ran out')\n"
        "        return super().loss(model, batch)\n"
    )
    ended = tuner(
        *("run", "--workload", "models.late:Late", "--optimizers", "sgd,adam"),
        *("--set", "train.batch_size=32"),
    )
    assert ended.returncode == 1
    assert "all failed alike" in ended.stderr
    assert "the data ran out" in ended.stderr
    assert "late.py" in ended.stderr
    shown = typed("trial", "show", "late", "0").stdout
    assert "ValueError: the data ran out" in shown
    assert report(typed, "late")["counts"] == {
        "complete": 0, "pruned": 0, "diverged": 0, "failed": 5,
        "running": 0, "waiting": 0, "paused": 0,
    }  # fmt: skip


def test_program_of_tuners_name_in_the_working_directory_is_not_run(project: Path) -> None:
    (project / "tuner.py").write_text("raise SystemExit('the wrong program')\n")
    command = [sys.executable, "-P", "-m", "tuner", "run", "studies/parabola.toml", *_SMALL]
    command += ("--set", "budget.trials=1")
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "1 of 1" in ended.stdout


@pytest.mark.slow
def test_what_a_user_named_things_never_becomes_code(tuner: Tuner, project: Path) -> None:
    name = 'x"""+__import__("os").system("touch owned")+"""[red]'
    ran = tuner("run", "studies/parabola.toml", "--name", name, *_SMALL)
    assert ran.returncode == 0, ran.stderr
    assert name in ran.stdout
    exported = tuner("study", "export", name, "--output", "winner.py")
    assert exported.returncode == 0, exported.stderr
    runpy.run_path("winner.py")
    assert not (project / "owned").exists()


def test_workload_that_ends_its_process_is_not_a_success(tuner: Tuner, project: Path) -> None:
    (project / "models" / "exit.py").write_text(
        "import os\nfrom models.parabola import Parabola\n\n\n"
        "class Exit(Parabola):\n"
        "    steps = 0\n\n"
        "    def loss(self, model, batch):\n"
        "        Exit.steps += 1\n"
        "        if Exit.steps > 60:\n"  # later than what the rehearsal takes
        "            os._exit(0)\n"
        "        return super().loss(model, batch)\n"
    )
    ended = tuner("run", "--workload", "models.exit:Exit", "--set", "train.batch_size=32")
    assert ended.returncode == 1
    assert "ended before the study was done" in ended.stderr


def states(project: Path) -> dict[str, int]:
    with closing(sqlite3.connect(project / "tuner.db")) as connection:
        return dict(connection.execute("SELECT state, count(*) FROM trials GROUP BY state"))


def wait_for_trials(project: Path, count: int, process: subprocess.Popen[str]) -> None:
    for _ in range(1200):
        if (project / "tuner.db").exists():
            try:
                if sum(states(project).values()) >= count:
                    return
            except sqlite3.OperationalError:
                pass
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError("the study did not start")


def start(project: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tuner", *arguments],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def worker_pids(project: Path) -> list[int]:
    with closing(sqlite3.connect(project / "tuner.db")) as connection:
        return [pid for (pid,) in connection.execute("SELECT pid FROM tuner_workers")]


def has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


_DIGITS = (*("studies/digits.toml", "--set", "budget.trials=24", "--set", "budget.steps=300"),)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["worker", "parent"])
def test_study_whose_processes_are_killed_ends_with_exactly_its_budget(
    tuner: Tuner, typed: Tuner, project: Path, victim: str
) -> None:
    process = start(project, "run", *_DIGITS, "--workers", "3")
    wait_for_trials(project, 8, process)
    pids = worker_pids(project)
    os.kill(process.pid if victim == "parent" else pids[0], signal.SIGKILL)
    process.communicate(timeout=120)
    for _ in range(600):
        if all(has_ended(pid) for pid in pids):
            break
        time.sleep(0.05)
    assert all(has_ended(pid) for pid in pids)
    again = tuner("run", *_DIGITS, "--workers", "3")
    assert again.returncode == 0, again.stderr
    counts = report(typed, "digits")["counts"]
    assert isinstance(counts, dict)
    unfinished = counts["running"] + counts["waiting"]
    assert (sum(counts.values()), unfinished, counts["failed"]) == (24, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_saves_its_trial_and_a_second_run_continues(
    tuner: Tuner, project: Path, number: signal.Signals
) -> None:
    long = ("studies/digits.toml", "--set", "budget.trials=1", "--set", "budget.steps=8000")
    process = start(project, "run", *long)
    wait_for_trials(project, 1, process)
    time.sleep(0.5)
    os.killpg(process.pid, number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert "saved" in output
    saved = list((project / ".tuner").rglob("*.pt"))
    assert len(saved) == states(project).get("RUNNING", 0)
    again = tuner("run", *long)
    assert again.returncode == 0, again.stderr
    assert states(project).get("RUNNING", 0) == 0
    assert sum(states(project).values()) == 1
    if saved:
        [log] = (project / ".tuner").rglob("worker-0.log")
        assert "continues at step" in log.read_text()


def test_dashboard_shows_the_study_on_loopback_only(typed: Tuner, project: Path) -> None:
    assert typed("study", "create", "studies/parabola.toml").returncode == 0
    process = start(project, "dashboard", "--port", "0")
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        url = line.split(": ")[1].split()[0]
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(f"{url}api/studies", timeout=30) as answer:  # noqa: S310
            summaries = json.load(answer)
        shown = [s["study_name"] for s in summaries["study_summaries"]]
        assert shown == ["parabola", "parabola.confirm"]  # which waits for the search
        for header, value in (("Host", "evil.example"), ("Origin", "http://evil.example")):
            request = urllib.request.Request(  # noqa: S310
                f"{url}api/studies/1", method="DELETE", headers={header: value}
            )
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(request, timeout=30)  # noqa: S310
        port = int(url.rstrip("/").rpartition(":")[2])
        for address in other_addresses():
            with pytest.raises(OSError, match="refused"):
                socket.create_connection((address, port), timeout=5)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


def other_addresses() -> list[str]:
    """Returns addresses of this machine besides loopback."""
    found = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None)}
    return [str(address) for address in found if not str(address).startswith(("127.", "::1"))]


def test_an_opening_is_shown_as_what_did_well_elsewhere(typed: Tuner) -> None:
    few = ("--set", "budget.trials=3", "--set", "budget.epochs=1")
    ended = typed("run", "studies/parabola.toml", *few)
    assert ended.returncode == 0, ended.stderr
    shown = typed("trial", "show", "parabola", "0").stdout
    assert "schedule, one that did well on other workloads" in shown
    assert "workloads" not in typed("trial", "show", "parabola", "1").stdout


def test_budget_in_full_trials_is_told_everywhere(
    typed: Tuner, tuner: Tuner, project: Path
) -> None:
    bound = ("--set", "budget.full_trials=2.5", "--set", "budget.epochs=2", "--fuse", "off")
    ended = tuner("run", "studies/parabola.toml", "--set", "search.spare=0", *bound)
    assert ended.returncode == 0, ended.stderr
    assert " of 2.5 full trials" in ended.stderr
    parsed = report(typed, "parabola")
    used = parsed["full_trials_used"]
    assert isinstance(used, float)
    assert 1.5 < used <= 2.5
    assert "expected_gain" in parsed
    [overview] = json.loads(typed("study", "list", "--json").stdout)
    assert (overview["full_trials"], overview["used"]) == (2.5, used)
    assert f"{used:.4g}/2.5" in typed("study", "list").stdout
    shown = typed("study", "show", "parabola").stdout
    assert re.search(rf"full trials +{re.escape(f'{used:.4g}')} of 2\.5\n", shown)
    assert f"{used:.4g} of 2.5 used" in ended.stdout


def test_target_is_reached_and_told(typed: Tuner, tuner: Tuner, project: Path) -> None:
    aim = ("--set", "study.objective=time_to_target")
    refused = typed("run", "studies/parabola.toml", *aim)
    assert refused.returncode != 0
    assert "needs a target: add target = 0.1" in refused.stderr
    more = ("--set", "study.target=0.02", "--set", "budget.trials=3", "--fuse", "off")
    ended = tuner("run", "studies/parabola.toml", *aim, *more)
    assert ended.returncode == 0, ended.stderr
    assert "Optimizers by steps to val_loss 0.02, best first" in ended.stdout
    assert re.search(r"it reaches\s+val_loss\s+0\.02\s+in\s+\d+\s+steps", ended.stdout)
    assert "reach val_loss 0.02 in few steps" in typed("study", "show", "parabola").stdout
    assert re.search(r"\d+ steps", typed("study", "list").stdout)
    assert json.loads(typed("study", "list", "--json").stdout)[0]["unit"] == "steps"
    html = typed("study", "report", "parabola", "--format", "html").stdout
    assert "reach val_loss 0.02 in few steps" in html
    exported = typed("study", "export", "parabola").stdout
    assert re.search(r"# Trial \d reached val_loss 0\.02 in \d+ steps", exported)
