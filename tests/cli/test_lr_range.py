"""The learning-rate range test, as typed."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tuner.cli.main import cli

Type = Callable[..., Result]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Type:
    for folder in ("models", "studies"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    monkeypatch.chdir(tmp_path)

    def type_(*words: str) -> Result:
        return CliRunner().invoke(cli, ["lr-range", *words])

    return type_


def test_ranges_are_printed_as_tables_to_paste(typed: Type) -> None:
    shown = typed("models.parabola:Parabola", "--steps", "100", "--set", "train.batch_size=32")
    assert shown.exit_code == 0, shown.output
    tables = tomllib.loads(shown.stdout.partition("In a study file:")[2])
    assert set(tables["optimizer"]) == {"sgd", "adamw"}
    for axes in tables["optimizer"].values():
        assert axes["lr"]["log"] is True
        assert 0 < axes["lr"]["low"] < axes["lr"]["high"] < 10
    assert "▁" in shown.stdout
    assert not list(Path.cwd().glob("*.db"))


def test_a_study_file_is_written_that_runs(typed: Type) -> None:
    study = Path("studies/own_loop.toml")
    study.write_text(study.read_text() + '\n[[train.groups]]\nname = "head"\nmatch = "3.*"\n')
    shown = typed(
        *(str(study), "--optimizer", "adamw", "--write-study", "studies/narrow.toml"),
        *("--output", "rates.html"),
    )
    assert shown.exit_code == 0, shown.output
    written = tomllib.loads(Path("studies/narrow.toml").read_text())
    before = tomllib.loads(study.read_text())
    assert written["study"]["name"] == "narrow"
    assert written["optimizer"]["adamw"]["lr"]["log"] is True
    for table in ("budget", "space", "train"):
        assert written[table] == before[table]
    run = CliRunner().invoke(cli, ["study", "create", "studies/narrow.toml", "--no-check"])
    assert run.exit_code == 0, run.output
    page = Path("rates.html").read_text()
    assert "Loss of adamw by learning rate" in page
    assert "[optimizer.adamw]" in page
    again = typed(str(study), "--optimizer", "adamw", "--write-study", "studies/narrow.toml")
    assert again.exit_code == 2
    assert "--force" in again.output


def test_json_has_curves_and_nothing_else(typed: Type) -> None:
    Path("models/loud.py").write_text(
        "from models.parabola import Parabola\n\n\nclass Loud(Parabola):\n"
        "    def model(self):\n        print('hello')\n        return super().model()\n"
    )
    shown = typed(
        *("models.loud:Loud", "--optimizer", "sgd", "--steps", "60", "--json"),
        *("--set", "train.batch_size=32"),
    )
    assert shown.exit_code == 0, shown.output
    [found] = json.loads(shown.stdout)["optimizers"]
    assert found["optimizer"] == "sgd"
    assert len(found["rates"]) == len(found["losses"]) <= 60
    assert found["range"]["low"] < found["steepest"] < found["range"]["high"]


def test_no_range_is_said_and_ends_with_an_error(typed: Type) -> None:
    small = ("--from", "1e-9", "--to", "1e-8", "--steps", "30", "--set", "train.batch_size=32")
    shown = typed("models.parabola:Parabola", *small)
    assert shown.exit_code == 1
    assert "No range was found" in shown.stdout
    refused = typed("models.parabola:Parabola", *small, "--write-study", "never.toml")
    assert refused.exit_code == 1
    assert not Path("never.toml").exists()


def test_a_command_is_refused(typed: Type) -> None:
    words = '["python", "x.py", "--optimizer={optimizer}", "--lr={lr}"]'
    Path("command.toml").write_text(f"[study]\ncommand = {words}\n\n[budget]\nsteps = 10\n")
    shown = typed("command.toml")
    assert shown.exit_code == 2, shown.output
    assert "needs a class or a training loop in Python" in shown.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("models.digits:Digits", "--from", "1", "--to", "0.1"), "--from 1 --to 0.1"),
        (("models.digits:Digits", "--output", "rates.png"), "name it rates.html"),
        (("studies/own_loop.toml", "--optimizer", "sgd"), "the study file has momentum, adam"),
        (("models.nothing:At",), "models.nothing"),
        (("nothing.toml",), "nothing.toml"),
        (("models.digits:Digits", "--optimizer", "adma"), "did you mean 'adam'"),
        (("models.digits:Digits", "--optimizer", "lbfgs"), "several times a step"),
    ],
)
def test_mistakes_are_explained(typed: Type, words: tuple[str, ...], said: str) -> None:
    shown = typed(*words)
    assert shown.exit_code == 2, shown.output
    assert said in shown.output
