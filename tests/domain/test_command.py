"""The words of a command: what they may say, and what becomes of them in a trial."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from typing import Any

import pytest

from tuner.domain.allowed_commands import (
    ALLOW_COMMAND,
    allow_commands,
    check_allowed,
    vouch_for_command,
)
from tuner.domain.catalog.dimensions import Fixed
from tuner.domain.catalog.hyperparameters import name_in_torch
from tuner.domain.command import fill, known_settings, placeholders_of, write_line, write_setting
from tuner.domain.spec import StudySpec
from tuner.domain.study_file import parse_spec
from tuner.domain.trial_settings import settings_of_trial
from tuner.domain.trials import decode, default_proposals
from tuner.errors import SpecError

TRAIN = ["python", "train.py"]


def spec_of(*flags: str, **tables: Any) -> StudySpec:
    study = {"name": "small", "command": [*TRAIN, *flags]}
    tree = {"study": study, "space": {"optimizers": ["sgd"]}, "budget": {"steps": 10}}
    return parse_spec(tree | tables, origin="x.toml").resolve()


def refusal(*flags: str, **tables: Any) -> str:
    with pytest.raises(SpecError) as caught:
        spec_of(*flags, **tables)
    return str(caught.value)


def test_a_spec_with_a_command_comes_back_from_its_json() -> None:
    spec = spec_of("--lr={lr}", own={"width": {"low": 4, "high": 8}}, process={"grace_s": 1.0})
    assert spec.study.workload == "python train.py --lr={lr}"
    assert parse_spec(spec.to_json(), origin="again") == spec


def test_a_stored_command_whose_line_has_other_quotes_is_read() -> None:
    tree = spec_of("--lr={lr}").to_json()
    tree["study"]["workload"] = "python train.py '--lr={lr}'"
    assert parse_spec(tree, origin="old").study.command == (*TRAIN, "--lr={lr}")


@pytest.mark.parametrize(
    "word", ["{lr}", "--b={betas.0},{eps}", "{{a}}", "{a,b}", "{a..b}", "a'$b"]
)
def test_a_line_of_a_command_reads_as_its_words_in_a_shell(word: str) -> None:
    line = write_line(["printf", "%s", word])
    assert shlex.split(line)[2] == word
    shown = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert shown.stdout == word


def test_workload_and_command_exclude_each_other() -> None:
    study = {"name": "a", "command": TRAIN, "workload": "models.a:A"}
    assert "give workload or command, not both" in refusal(study=study)
    both = {"study": {"name": "a", "workload": "models.a:A"}}
    for table in ({"own": {"width": 3}}, {"process": {"resumable": True}}):
        with pytest.raises(SpecError, match=r"is for a study with study\.command"):
            parse_spec(both | table, origin="x")


def test_an_unknown_setting_is_refused_with_those_there_are() -> None:
    text = refusal("--lr={lrr}")
    assert "there is no setting {lrr}: did you mean {lr}? there are " in text
    assert "batch_size" in text
    assert "{{ and }}" in text


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ([], "needs a program"),
        (["{lr}"], "names the program, which no setting may"),
        (["-c", "x"], "reads as an option"),
        (["a", "{"], "holds no name"),
        (["a", "{}"], "holds no name"),
        (["a", "b}"], "holds no name"),
        (["a", "b\0"], "NUL"),
        (["a", "--{optimizer}={lr}"], "has its option named by a setting"),
        (["a", "-{optimizer}"], "has its option named by a setting"),
        (["python", "-u", "{optimizer}"], "tells python what to run"),
        (["bash", "-c", "{optimizer}"], "tells bash what to run"),
    ],
)
def test_words_that_can_be_no_command_are_refused(words: list[str], rule: str) -> None:
    assert rule in refusal(study={"name": "a", "command": words})


def test_schedules_are_ours_only_where_the_command_hears_of_them() -> None:
    assert spec_of("--lr={lr}").space.schedules == ("constant",)
    assert len(spec_of("--lr={lr}", "--schedule={schedule}").space.schedules) > 1
    assert len(spec_of().space.schedules) > 1  # by its file, or by tuner.current()


def searched(*flags: str, **tables: Any) -> set[str]:
    tables = {"budget": {"steps": 10, "trials": 200}} | tables
    axes = spec_of(*flags, space={"optimizers": ["adam"]}, **tables).axes()
    return {name_in_torch(name) for name, axis in axes.items() if not isinstance(axis, Fixed)}


def test_what_a_command_never_hears_of_is_not_searched() -> None:
    chosen = {"optimizer", "schedule"}
    assert searched("--lr={lr}") == chosen | {"adam.lr"}
    assert searched("--lr={lr}", "{betas.1}") == chosen | {"adam.lr", "adam.beta2"}
    both = chosen | {"adam.lr", "adam.beta1", "adam.beta2"}
    assert searched("--lr={lr}", "{betas}") == both
    decayed = searched("--lr={lr}", "--schedule={schedule}", "{schedule.warmup}")
    assert decayed >= {"adam.lr", "constant.warmup", "cosine.warmup"}
    assert decayed.isdisjoint({"adam.beta1", "cosine.final_ratio"})


@pytest.mark.parametrize("flags", [(), ("--seed={seed}",), ("--lr={lr}", "{file}")])
def test_a_command_that_may_read_all_settings_has_all_searched(flags: tuple[str, ...]) -> None:
    assert searched(*flags) >= {"adam.lr", "adam.beta1", "adam.eps", "adam.weight_decay"}


def test_what_the_study_file_sets_is_searched_whether_or_not_an_argument_has_it() -> None:
    found = searched("--lr={lr}", optimizer={"adam": {"eps": {"low": 1e-9, "high": 1e-6}}})
    assert "adam.eps" in found
    assert "adam.beta1" not in found


def test_several_optimizers_need_their_name_said() -> None:
    space = {"optimizers": ["sgd", "adam"]}
    assert 'add "--optimizer={optimizer}"' in refusal("--lr={lr}", space=space)
    spec_of("--lr={lr}", "--optimizer={optimizer}", space=space)


def test_the_class_of_an_optimizer_is_a_name_in_torch() -> None:
    space = {"optimizers": ["adamw", "sgd", "momentum"]}
    spec = spec_of("{optimizer.class}", "--lr={lr}", "--momentum={momentum}", space=space)
    told = {
        settings_of_trial(spec, decode(spec, proposal), {})["optimizer.class"]
        for proposal in default_proposals(spec)
    }
    assert told == {"AdamW", "SGD"}


@pytest.mark.parametrize(
    ("optimizers", "rule"),
    [
        (["adamw", "muon"], r'muon is no single class of torch\.optim: .* such as \["adamw"\]'),
        (["lookahead(sgd)"], r'lookahead\(sgd\) is no single class.* such as \["adamw", "sgd"\]'),
        (["lion"], "lion is no single class"),
        (["momentum", "nesterov"], "momentum and nesterov are the same to the command: both are"),
    ],
)
def test_what_no_class_of_torch_names_is_refused(optimizers: list[str], rule: str) -> None:
    flags = ("{optimizer.class}", "--momentum={momentum}")
    assert re.search(rule, refusal(*flags, space={"optimizers": optimizers}))


def test_the_name_tells_apart_what_the_class_does_not() -> None:
    spec_of("{optimizer.class}", "{optimizer}", space={"optimizers": ["momentum", "nesterov"]})


@pytest.mark.parametrize(
    ("flags", "tables", "rule"),
    [
        (("{epochs}",), {}, "its budget counts steps"),
        (("{steps}",), {"budget": {"epochs": 3}}, "its budget counts epochs"),
        ((), {"budget": {"examples": 300}}, "counts steps or epochs"),
        ((), {"budget": {"epochs": 1.5}}, "reports whole epochs"),
        ((), {"own": {"lr": {"low": 1, "high": 2}}}, "choose another name"),
        ((), {"own": {"a b": {"low": 1, "high": 2}}}, "use a plain word"),
        (("{lr}",), {"train": {"no_decay_on_biases_and_norms": True}}, "no argument tells"),
        ((), {"process": {"pattern": "("}}, "no regular expression"),
        ((), {"process": {"pattern": "loss"}}, "give its groups names"),
    ],
)
def test_what_cannot_reach_a_command_is_refused(
    flags: tuple[str, ...], tables: dict[str, Any], rule: str
) -> None:
    assert rule in refusal(*flags, **tables)


def test_a_setting_that_a_trial_lacks_goes_with_its_option() -> None:
    words = ["t", "--momentum", "{momentum}", "--betas", "{betas.0}", "{betas.1}", "--lr={lr}"]
    assert fill(words, {"lr": 0.1, "momentum": 0.9}) == ["t", "--momentum", "0.9", "--lr=0.1"]
    assert fill(words, {"betas.0": 0.9, "betas.1": 0.99}) == ["t", "--betas", "0.9", "0.99"]


def test_a_value_stays_one_argument_and_never_becomes_an_option() -> None:
    hostile = "x; rm -rf / $(id) `id` --evil\n"
    assert fill(["t", "--a={a}"], {"a": hostile}) == ["t", f"--a={hostile}"]
    assert fill(["t", "{a}"], {"a": -0.5}) == ["t", "-0.5"]
    for value in ("--evil", "-e", "--", "-1x"):
        with pytest.raises(SpecError, match="reads as an option"):
            fill(["t", "{a}"], {"a": value})
    with pytest.raises(SpecError, match="NUL"):
        fill(["t", "{a}"], {"a": "a\0b"})


def test_braces_of_a_value_are_no_placeholders() -> None:
    assert fill(["t", "--a={a}"], {"a": "{lr}", "lr": 1}) == ["t", "--a={lr}"]
    assert list(placeholders_of(["{{a}}", "{b}{c}"])) == ["b", "c"]


def test_numbers_come_back_as_they_were() -> None:
    for number in (0.1 + 0.2, 1e-300, 3.0000000000000004):
        assert float(write_setting(number)) == number


def test_every_setting_has_a_plain_name() -> None:
    assert all(name.replace(".", "").isidentifier() for name in known_settings((), (), (), ()))


@pytest.fixture(autouse=True)
def _nothing_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOW_COMMAND, "")


def test_only_commands_that_begin_as_one_allowed_run() -> None:
    words = [*TRAIN, "--lr={lr}"]
    with pytest.raises(SpecError, match=r"started for none.*--allow-command 'python train\.py'"):
        check_allowed(words)
    allow_commands(["python train.py"])
    check_allowed(words)
    for other in (["python", "other.py"], ["python"], ["python", "train.py2"], ["sh", *words]):
        with pytest.raises(SpecError, match="was not run"):
            check_allowed(other)


def test_what_is_to_be_allowed_is_the_program_and_its_script() -> None:
    with pytest.raises(SpecError, match=r"with --allow-command 'torchrun -a=2 train\.py'$"):
        check_allowed(["torchrun", "-a=2", "train.py", "--lr={lr}", "x"])
    with pytest.raises(SpecError, match=r"with --allow-command \./train\.sh$"):
        check_allowed(["./train.sh", "{lr}"])


def test_a_study_file_vouches_for_its_very_command() -> None:
    vouch_for_command([*TRAIN, "--lr={lr}"])
    vouch_for_command(None)
    check_allowed([*TRAIN, "--lr={lr}"])
    for other in ([*TRAIN, "--config=evil"], [*TRAIN, "--lr={lr}", "--config=evil"]):
        with pytest.raises(SpecError, match="was not run"):
            check_allowed(other)


@pytest.mark.parametrize(
    "line",
    [
        *("python", "/usr/bin/python3.11", "bash", "env", "torchrun", "python -u", "python -m"),
        *("sh -c", "env X=1 python", "nice -n 10 python", "uv run", "uv run python", "timeout 5m"),
        *("torchrun --nproc-per-node=2", "python -m torch.distributed.run --standalone"),
    ],
)
def test_a_program_that_runs_anything_is_not_allowed_alone(line: str) -> None:
    with pytest.raises(SpecError, match="would allow anything"):
        allow_commands([line])


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("python -u train.py --lr={lr}", "python -u train.py"),
        ("torchrun --standalone --nnodes=1 train.py --lr={lr}", "torchrun .* train.py"),
        ("./train.sh {lr}", "./train.sh"),
    ],
)
def test_the_option_that_is_named_to_allow_a_command_does(words: str, option: str) -> None:
    with pytest.raises(SpecError, match=f"--allow-command '?{option}'?$") as error:
        check_allowed(words.split())
    line = shlex.split(str(error.value).partition("start it with ")[2])[1]
    allow_commands([line])
    check_allowed(words.split())


@pytest.mark.parametrize("line", ["", "  ", "python 'train.py"])
def test_a_line_that_is_no_command_is_refused(line: str) -> None:
    with pytest.raises(SpecError, match="--allow-command"):
        allow_commands([line])


def test_the_variable_holds_a_line_or_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOW_COMMAND, "python train.py")
    check_allowed(TRAIN)
    vouch_for_command(["sh", "a b\nc"])
    assert json.loads(os.environ[ALLOW_COMMAND]) == [TRAIN, ["sh", "a b\nc", None]]
    check_allowed(["sh", "a b\nc"])
    for text in ("[", "[1]", "[[]]", "[[1]]", "[[null, 1]]", "python"):
        monkeypatch.setenv(ALLOW_COMMAND, text)
        with pytest.raises(SpecError, match=ALLOW_COMMAND):
            check_allowed(TRAIN)
