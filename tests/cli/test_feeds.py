"""``tuner study log``, ``tuner study events``, ``--log-to`` and ``--notify``, as typed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tuner.domain.event_kinds import KINDS

Tuner = Callable[..., subprocess.CompletedProcess[str]]

RUN = (
    *("run", "--workload", "models.parabola:Parabola", "--optimizers", "sgd", "--name", "small"),
    *("--set", "budget.trials=4", "--set", "budget.steps=40", "--fuse", "off", "--quiet"),
)


class _Server(ThreadingHTTPServer):
    def __init__(self, status: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.got = status, list[dict[str, Any]]()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/services/T0/hunter2-hunter2"


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append(json.loads(body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[_Server]:
    """Returns a web server on this machine that keeps what is posted to it."""
    server = _Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_run_sends_its_curves_and_tells_its_end(tuner: Tuner, project: Path, hook: _Server) -> None:
    command = f'{sys.executable} -c \'import sys; open("note", "w").write(sys.stdin.read())\''
    ended = tuner(
        *(*RUN, "--log-to", "tensorboard:runs"),
        *("--notify", hook.url, "--notify", command),
    )
    assert ended.returncode == 0, ended.stderr
    trials = sorted(path.name for path in (project / "runs" / "small").glob("trial-*"))
    assert trials == [f"trial-{number:04d}" for number in range(4)]
    [notice] = hook.got
    assert json.loads((project / "note").read_text()) == notice
    assert notice["event"] == "study_finished"
    assert notice["study"] == "small"
    assert notice["optimizer"] == "sgd"
    assert sum(notice["trials"].values()) == 4
    assert notice["verdict"] in notice["text"]
    assert notice["value"] == pytest.approx(notice["value"])

    logged = tuner("study", "log", "small", "--to", "tensorboard:runs")
    assert logged.returncode == 0
    assert "holds 4 trials of 'small'" in logged.stdout
    as_json = tuner("study", "log", "small", "--to", "tensorboard:runs", "--json").stdout
    [told] = json.loads(as_json)["targets"]
    assert (told["trials"], told["whole"]) == (4, True)
    files = list((project / "runs" / "small").glob("trial-*/*"))
    assert len(files) == 4, "what was there was written again"

    lines = tuner("study", "events", "small", "--json").stdout.splitlines()
    events = [json.loads(line) for line in lines]
    assert {event["kind"] for event in events} <= KINDS.keys()
    assert [event["id"] for event in events] == sorted(event["id"] for event in events)
    keys = {"id", "at", "kind", "study", "trial", "worker", "host", "pid", "device", "detail"}
    assert all(event.keys() == keys for event in events)
    [joined] = [event for event in events if event["kind"] == "joined"]
    assert joined["device"] == "cpu"
    assert "torch" in joined["detail"]
    ends = {e["trial"] for e in events if e["kind"] in ("finished", "ended")}
    assert ends == {0, 1, 2, 3}

    # It is over, so that nothing is waited for.
    followed = tuner("study", "events", "small", "--follow", "--kind", "left")
    assert followed.returncode == 0
    [line] = followed.stdout.splitlines()
    assert "small: left on" in line
    assert line.endswith("nothing left to do")


def test_webhook_that_fails_is_a_warning_without_its_secret(
    tuner: Tuner, project: Path, hook: _Server
) -> None:
    hook.status = 403
    broken = f"{sys.executable} -c 'import sys; sys.exit(\"no printer\")'"
    gone = "http://127.0.0.1:9/services/hunter2-hunter2"  # nobody listens there
    ended = tuner(*RUN, "--notify", hook.url, "--notify", broken, "--notify", gone)
    assert ended.returncode == 0
    assert f"Warning: --notify: http://127.0.0.1:{hook.server_port}/… answered 403." in ended.stderr
    assert "no printer" in ended.stderr
    assert "http://127.0.0.1:9/… could not be reached" in ended.stderr
    assert "hunter2" not in ended.stdout + ended.stderr
    assert len(hook.got) == 1


def test_study_that_fails_is_told_so(tuner: Tuner, project: Path, hook: _Server) -> None:
    (project / "models" / "bad.py").write_text(
        "import torch\n"
        "def train(run):\n"
        "    model = torch.nn.Linear(1, 1)\n"
        "    optimizer = run.optimizer(model)\n"
        "    for step in run.steps():\n"
        "        model(torch.ones(1, 1)).sum().backward()\n"
        "        optimizer.step()\n"
        "        run.report(loss=1.0)\n"
        "        if step > 20:\n"
        "            raise ValueError('no data')\n"
    )
    ended = tuner(
        *("run", "--workload", "models.bad:train", "--set", "budget.steps=50"),
        *("--set", "study.metric=loss", "--name", "bad", "--notify", hook.url),
    )
    assert ended.returncode != 0
    [notice] = hook.got
    assert notice["event"] == "study_failed"
    assert "no data" in notice["error"]
    told = tuner("study", "events", "bad", "--kind", "left").stdout
    assert "left on" in told
    assert "error: The first" in told


def test_sink_that_is_away_stops_no_training(tuner: Tuner, project: Path) -> None:
    pytest.importorskip("mlflow")
    away = "mlflow:http://ann:hunter2-hunter2@127.0.0.1:9"
    process = tuner(*RUN, "--log-to", away, "--log-to", "tensorboard:runs")
    assert process.returncode == 0
    assert "mlflow:http://ann:***@127.0.0.1:9" in process.stderr
    assert "tuner study log small --to" in process.stderr
    assert "hunter2" not in process.stdout + process.stderr
    assert len(list((project / "runs" / "small").glob("trial-*"))) == 4


@pytest.mark.parametrize(
    ("option", "text", "message"),
    [
        ("--log-to", "tensorbord:runs", "begin with a tool: tensorboard:FOLDER"),
        ("--log-to", "tensorboard:", "say where to: tensorboard:FOLDER"),
        ("--log-to", "wandb:a/b/c", "name a project: wandb:PROJECT"),
        ("--log-to", "http://ann:hunter2-hunter2@h", "http://ann:***@h: begin with a tool"),
        ("--notify", "no-such-program-7 --x", "no-such-program-7: there is no such program"),
        ("--notify", "sh -c 'open", "close every quote"),
        ("--notify", "ftp://host/a", "begins with http:// or https://"),
        ("--notify", "https:///path", "names no host"),
        ("--notify", "http://host:port/", "write https://HOST/PATH"),
        ("--notify", "''", "such as 'notify-send done'"),
    ],
)
def test_nonsense_is_refused_before_anything_starts(
    typed: Tuner, project: Path, option: str, text: str, message: str
) -> None:
    ended = typed("run", "studies/digits.toml", option, text)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert "hunter2" not in ended.stderr
    assert not (project / "tuner.db").exists()


def test_missing_extra_is_named(
    typed: Tuner, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    ended = typed("run", "studies/digits.toml", "--log-to", "wandb:mine")
    assert ended.returncode == 2
    assert "pip install 'tuner[wandb]'" in ended.stderr


def test_following_ends_by_ctrl_c(project: Path, tuner: Tuner) -> None:
    created = ("--workload", "models.parabola:Parabola", "--set", "budget.steps=40")
    assert tuner("study", "create", *created, "--name", "open", "--no-check").returncode == 0
    assert tuner("study", "pause", "open").returncode == 0
    following = {
        "events": ("events", "open", "--follow"),
        "log": ("log", "open", "--follow", "--to", "tensorboard:r"),
    }
    for what, words in following.items():
        with subprocess.Popen(
            [sys.executable, "-m", "tuner", "study", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            text=True,
        ) as process:
            assert process.stdout is not None
            if what == "events":
                assert "open: paused" in process.stdout.readline()
            while what == "log" and not (project / "r" / "open" / "tuner-study.json").exists():
                assert process.poll() is None
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=30)
            assert process.returncode == 130, said


def test_wandb_without_a_key_is_said_and_not_asked_for(
    tuner: Tuner, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(project / "none"))
    monkeypatch.setenv("NETRC", str(project / "netrc"))
    assert tuner(*RUN).returncode == 0
    ended = tuner("study", "log", "small", "--to", "wandb:mine")
    assert ended.returncode == 2
    assert "no key is known: run 'wandb login' once" in ended.stderr
    assert not (project / "wandb").exists()
