from __future__ import annotations

import shlex
from typing import Any

import pytest

from tests.report.summaries import make_spec
from tuner.analysis.advice.commands import join, search_again, write_toml, write_value
from tuner.cli.main import cli
from tuner.domain.catalog.dimensions import Fixed, Float
from tuner.domain.command import read_line
from tuner.domain.spec import StudySpec
from tuner.domain.study_file import apply_settings, parse_spec

LR: dict[str, Any] = {"low": 1e-4, "high": 0.1, "log": True}


def typed(command: str | None) -> StudySpec:
    """Returns the study that a command describes, as the command line reads it."""
    assert command is not None
    words = shlex.split(command)
    assert words[:2] == ["tuner", "run"]
    context = cli.commands["run"].make_context("run", words[2:])
    given = context.params
    code = {"workload": given["workload"]}
    if given["command"] is not None:
        code = {"command": read_line(given["command"], "--command")}
    tree = {
        "study": {"name": given["name"], **code},
        "space": {"optimizers": given["optimizers"].split(",")},
    }
    return parse_spec(apply_settings(tree, given["settings"]), origin="test").resolve()


TABLES: list[dict[str, Any]] = [
    {},
    {"budget": {"trials": 20, "epochs": 2.5, "evaluations": 3}},
    {"budget": {"full_trials": 7.5, "trials": 30, "wall_time": "1h", "examples": 1000}},
    {"search": {"sampler": "mine:build", "pruner": "none", "seed": 7, "portfolio": False}},
    {"train": {"batch_size": {"choices": ["full", 32]}, "grad_clip": 1.5, "stall_s": 20.0}},
    {"train": {"groups": [{"name": "head", "match": "head.*", "lr_multiplier": 2.0}]}},
    {"optimizer": {"adam": {"lr": LR, "eps": 1e-6}, "sgd": {"lr": 0.1}}},
    {"schedule": {"step": {"gamma": {"low": 0.1, "high": 0.9}}}},
    {"network": {"left": {"adam": {"lr": LR}}}},
    {"confirm": {"top": 0}},
    {"study": {"name": "o'brien $x", "workload": "m:W", "objective": "time_to_target",
               "target": 0.5}},
]  # fmt: skip


@pytest.mark.parametrize("tables", TABLES, ids=" ".join)
def test_a_study_searched_again_is_as_before_but_for_its_name(tables: dict[str, Any]) -> None:
    space = {"breadth": 2, "optimizers": ["adam", "sgd"], "schedules": ["constant", "step"]}
    spec = make_spec(**{"space": space} | tables)
    again = typed(search_again(spec, "more", {}))
    assert again.study.name == f"{spec.study.name}.more"
    assert spec.differences(again).keys() == {"study.name"}


def test_a_command_searched_again_says_what_differs_as_people_write_it() -> None:
    tree = {
        "study": {"name": "small", "command": ["python", "train.py", "--lr={lr}", "a b"]},
        "budget": {"epochs": 8, "trials": 30},
        "space": {"optimizers": ["adam"], "breadth": 2},
        "process": {"resumable": True},
        "own": {"width": 8.0},
    }
    spec = parse_spec(tree, origin="test").resolve()
    line = search_again(spec, "more", {"budget.epochs": 16.0})
    assert line == (
        """tuner run --command "python train.py --lr={lr} 'a b'" --name small.more """
        "--optimizers adam --set budget.trials=30 --set budget.epochs=16 --set own.width=8.0 "
        "--set process.resumable=true --set space.breadth=2"
    )
    assert spec.differences(typed(line)).keys() == {"study.name", "budget.epochs"}


def test_changes_and_axes_are_set_and_a_length_replaces_the_other() -> None:
    spec = make_spec(
        space={"optimizers": ["adam", "sgd"], "breadth": 1},
        optimizer={"adam": {"lr": LR}, "sgd": {"lr": 0.5}},
    )
    axes = {("optimizer", "adam", "eps"): Fixed(value=1e-6)}
    command = search_again(spec, "x", {"budget.epochs": 3}, optimizers=["adam"], axes=axes)
    again = typed(command)
    assert again.space.optimizers == ("adam",)
    assert again.optimizer["adam"]["lr"] == Float(**LR)
    assert again.optimizer["adam"]["eps"] == Fixed(value=1e-6)
    assert (again.budget.epochs, again.budget.steps) == (3, None)


def test_a_study_that_is_not_allowed_has_no_command() -> None:
    assert search_again(make_spec(), "x", {"search.pruner": "nonsense"}) is None
    # Nothing that is left has a momentum to warm up.
    spec = make_spec(
        space={"optimizers": ["adam", "sgd"]}, train={"momentum_warmup": {"low": 0.0, "high": 0.5}}
    )
    assert search_again(spec, "x", {}, optimizers=["sgd"]) is None
    assert search_again(spec, "x", {}, optimizers=["adam"]) is not None


def test_words_are_quoted() -> None:
    assert join("study", "widen", "a b; rm") == "tuner study widen 'a b; rm'"


@pytest.mark.parametrize(
    "value",
    ["none", "true", "inf", "a:b", 'say "x"', 1, 0.1, 1e-30, True, [1, "full"], {"a b": {"c": []}}],
)
def test_a_value_is_read_back_as_it_was(value: Any) -> None:
    for text in (write_value(value), write_toml(value)):
        assert apply_settings({}, [f"x={text}"]) == {"x": value}
