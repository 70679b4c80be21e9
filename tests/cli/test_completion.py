"""The Tab key, as a real shell asks tuner what may follow."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from tuner.cli.main import cli
from tuner.cli.words import OPTIMIZER_NAMES

Tuner = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a home of nobody's, with a program ``tuner`` first in the path."""
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "tuner"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tuner "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


def press_tab(home: Path, *words: str) -> list[str]:
    """Returns what bash offers for the last word, after it has read its startup file."""
    bash = shutil.which("bash")
    assert bash is not None
    quoted = " ".join(f"'{word}'" for word in words)
    asked = (
        f"source {home}/.bashrc; COMP_WORDS=(tuner {quoted}); COMP_CWORD={len(words)}; "
        '_tuner_completion tuner; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    ended = subprocess.run([bash, "-c", asked], capture_output=True, text=True, check=True)
    assert ended.stderr == ""
    return ended.stdout.split()


@pytest.mark.skipif(shutil.which("fish") is None, reason="this system has no fish")
def test_fish_completes_names_and_lists_of_names(home: Path, project: Path, typed: Tuner) -> None:
    created = typed("study", "create", "studies/parabola.toml", "--no-check")
    assert created.returncode == 0, created.stderr
    assert typed("completion", "fish").returncode == 0

    def complete(line: str) -> list[str]:
        asked = f"complete -C '{line}'"
        ended = subprocess.run(
            ["fish", "-c", asked],
            capture_output=True,
            text=True,
            check=True,
        )
        return [row.partition("\t")[0] for row in ended.stdout.splitlines()]

    assert complete("tuner study di") == ["diff"]
    assert complete("tuner study show par") == ["parabola"]
    assert "sgd,adamw" in complete("tuner run --optimizers sgd,ada")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("zsh") is None, reason="this system has no zsh")
def test_zsh_completes_what_is_typed(home: Path, project: Path, typed: Tuner) -> None:
    created = typed("study", "create", "studies/parabola.toml", "--no-check")
    assert created.returncode == 0, created.stderr
    assert typed("completion", "zsh").returncode == 0
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover (another program from here on)
        os.execvp("zsh", ["zsh", "-i"])  # noqa: S606
    try:
        for line, whole in (
            ("tuner study show par\t", "parabola"),
            ("tuner optimizers yellow\t", "yellowfin"),
            ("tuner run --optimizers sgd,yellow\t", "sgd,yellowfin"),
        ):
            os.write(terminal, b"\x15" + line.encode())
            seen = ""
            while whole not in seen.replace("\x1b[1m", ""):
                ready, _, _ = select.select([terminal], [], [], 60)
                assert ready, f"{line!r} became {seen!r}"
                seen += os.read(terminal, 65536).decode(errors="replace")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


@pytest.mark.skipif(shutil.which("bash") is None, reason="this system has no bash")
def test_bash_completes_commands_studies_optimizers_and_schedules(
    home: Path, project: Path, typed: Tuner
) -> None:
    for name in ("parabola", "parabola-2", "digits"):
        file = "studies/parabola.toml"
        created = typed("study", "create", file, "--name", name, "--no-check")
        assert created.returncode == 0, created.stderr
    (home / ".bashrc").write_text("true")  # without a line's end
    for _ in range(2):
        assert typed("completion", "bash").returncode == 0
    assert (home / ".bashrc").read_text().count("completion of tuner") == 1
    assert press_tab(home, "study", "di") == ["diff"]
    assert press_tab(home, "study", "show", "par") == ["parabola", "parabola-2"]
    assert press_tab(home, "study", "diff", "digits", "d") == ["digits"]
    assert press_tab(home, "trial", "list", "digits", "--schedule", "cos")[0] == "cosine"
    assert "sgd,adamw" in press_tab(home, "run", "--optimizers", "sgd,ada")
    assert "adamw" in press_tab(home, "optimizers", "adam")
    assert press_tab(home, "init", "mine", "--template", "own") == ["own-loop"]
    nowhere = ("--storage", "sqlite:///none.db")
    assert press_tab(home, "study", "show", *nowhere, "par") == []
    secret = ("--storage", "postgresql://ann:hunter2@db.example/tuner", "--schedule", "cos")
    assert press_tab(home, "trial", "list", "digits", *secret)[0] == "cosine"


@pytest.mark.parametrize(
    ("shell", "script", "startup"),
    [
        ("bash", ".local/share/tuner/completion.bash", ".bashrc"),
        ("zsh", ".local/share/tuner/completion.zsh", ".zshrc"),
        ("fish", ".config/fish/completions/tuner.fish", None),
    ],
)
def test_completion_installs_itself_where_the_shell_looks(
    home: Path, monkeypatch: pytest.MonkeyPatch, shell: str, script: str, startup: str | None
) -> None:
    monkeypatch.setenv("SHELL", f"/usr/bin/{shell}")
    done = json.loads(CliRunner().invoke(cli, ["completion", "--json"]).stdout)
    assert done == {
        "shell": shell,
        "script": str(home / script),
        "startup_file": startup and str(home / startup),
    }
    text = (home / script).read_text()
    assert "_TUNER_COMPLETE" in text
    assert CliRunner().invoke(cli, ["completion", "--print"]).stdout.strip() == text.strip()
    if startup is not None:
        assert str(home / script) in (home / startup).read_text()


def test_unknown_shell_is_refused_with_those_there_are(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELL", "/bin/csh")
    refused = CliRunner().invoke(cli, ["completion"])
    assert refused.exit_code == 2
    assert "bash, zsh, fish" in refused.output


def test_file_that_cannot_be_written_is_told_with_the_way_round(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".local").write_text("a file in the way")
    refused = CliRunner().invoke(cli, ["completion", "bash"])
    assert refused.exit_code == 1
    assert "tuner completion bash --print" in refused.output


def test_only_the_last_of_several_names_is_completed() -> None:
    [option] = [p for p in cli.commands["run"].params if p.name == "optimizers"]
    context = cli.make_context("tuner", ["run"], resilient_parsing=True)
    offered = OPTIMIZER_NAMES.shell_complete(context, option, "sgd,adam,rms")
    assert [item.value for item in offered] == ["sgd,adam,rmsprop"]
