from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tuner.cli.main import cli
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.schedules import SCHEDULES

Tuner = Callable[..., subprocess.CompletedProcess[str]]


def _name(value: object) -> str:
    return " ".join(value) if isinstance(value, tuple) else ""


def commands(
    group: click.Group, path: tuple[str, ...] = ()
) -> list[tuple[tuple[str, ...], click.Command]]:
    found: list[tuple[tuple[str, ...], click.Command]] = []
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += commands(command, (*path, name))
        else:
            found.append(((*path, name), command))
    return found


@pytest.mark.parametrize(
    ("path", "command"),
    commands(cli),
    ids=_name,
)
def test_every_command_has_help_with_an_example(
    path: tuple[str, ...], command: click.Command
) -> None:
    assert command.help
    assert command.epilog is not None
    assert f"tuner {' '.join(path)}" in command.epilog


@pytest.mark.parametrize("name", [None, "study", "suite", "trial", "db", "worker", "workers"])
def test_group_has_examples_and_tells_whole_what_its_commands_do(name: str | None) -> None:
    shown = CliRunner().invoke(cli, [*([name] if name else []), "--help"]).output
    assert f"tuner {name or ''}" in shown.partition("Commands:")[2]
    assert "..." not in shown.partition("Commands:")[2]


@pytest.mark.parametrize(
    ("typed", "advice"),
    [
        ("report mine", "did you mean 'tuner study report' or 'tuner suite report'?"),
        ("studdy list", "did you mean 'tuner study'?"),
        ("study lst", "did you mean 'tuner study list'?"),
        ("lisst", "did you mean 'tuner study list' or 'tuner trial list' or"),
        ("study optimizers", "did you mean 'tuner optimizers'?"),
        ("mine", "see 'tuner --help'."),
    ],
)
def test_unknown_command_gets_the_nearest_of_any_group(typed: str, advice: str) -> None:
    ended = CliRunner().invoke(cli, typed.split(), prog_name="tuner")
    assert ended.exit_code == 2
    assert advice in ended.output


@pytest.mark.parametrize(("path", "command"), commands(cli), ids=_name)
def test_every_option_says_what_it_does(path: tuple[str, ...], command: click.Command) -> None:
    silent = [
        option.name
        for option in command.params
        if isinstance(option, click.Option)
        and not (option.help or option.hidden or option.name in ("style", "port"))
    ]
    assert silent == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["optimizers"],
        ["optimizers", "adam"],
        ["schedules", "--json"],
        ["run", "missing.toml"],
        ["run", "broken.toml"],
        ["suite", "run", "missing.toml"],
        ["study", "create", "--help"],
    ],
    ids=" ".join,
)
def test_light_command_answers_without_torch_or_optuna(project: Path, arguments: list[str]) -> None:
    (project / "broken.toml").write_text('[study]\nworkload = "a:b"\nnme = 3\n')
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "tuner", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    imported = {
        line.rpartition("|")[2].strip() for line in ended.stderr.splitlines() if "|" in line
    }
    assert "tuner.cli.main" in imported
    assert imported.isdisjoint({"torch", "optuna", "sqlalchemy", "sklearn", "numpy"})


def test_workers_start_and_a_study_is_watched_without_torch() -> None:
    code = (
        "import sys, tuner.service.display.progress, tuner.cli.run, tuner.report.terminal;"
        "from tuner.service import folders, interruption, open_study, study_run, summaries;"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True, timeout=60)


def test_optimizers_are_listed_for_programs(tuner: Tuner) -> None:
    listed = json.loads(tuner("optimizers", "--json").stdout)
    assert [row["name"] for row in listed] == list(OPTIMIZERS)
    assert all(row["hyperparameters"][0]["range"] for row in listed)


def test_one_optimizer_is_shown_with_its_ranges(tuner: Tuner) -> None:
    shown = tuner("optimizers", "adam").stdout
    assert "one_minus_beta1" in shown
    legend = " ".join(shown.rpartition("10^N(m, s): ")[2].split())
    assert "J: our judgement" in legend
    assert "SIV: priors of Sivaprasad et al." in legend
    assert "MU: " not in legend
    assert legend.endswith("docs/optimizers.md")
    assert "Kingma" in shown


def test_one_schedule_is_shown_with_its_course_over_a_trial(tuner: Tuner) -> None:
    shown = tuner("schedules", "step").stdout
    assert f"lr        {'█' * 20}{'▂' * 20}\n" in shown
    assert "momentum" not in shown
    cycling = tuner("schedules", "one_cycle").stdout
    assert "0.85 to 0.95, set by it" in cycling
    assert "final_div_factor" in cycling
    assert "stalls twice" in tuner("schedules", "plateau").stdout


def test_schedules_are_listed_for_programs(tuner: Tuner) -> None:
    listed = {row["name"]: row for row in json.loads(tuner("schedules", "--json").stdout)}
    assert list(listed) == list(SCHEDULES)
    assert [name for name in listed if listed[name]["cycles_momentum"]] == ["one_cycle", "cyclic"]
    assert [name for name in listed if listed[name]["follows_metric"]] == ["plateau"]


def test_unknown_optimizer_gets_the_nearest_name(tuner: Tuner) -> None:
    ended = tuner("optimizers", "adm")
    assert ended.returncode == 2
    assert "did you mean 'adam'" in ended.stderr


def test_version_is_told(tuner: Tuner) -> None:
    assert tuner("--version").stdout.startswith("tuner, version ")


def test_output_into_a_closed_pipe_ends_quietly(project: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tuner", "optimizers", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
