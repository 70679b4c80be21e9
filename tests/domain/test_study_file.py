from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from tuner.domain.study_file import apply_settings, parse_spec, read_spec
from tuner.errors import NotFoundError, SpecError

STUDIES = Path(__file__).parents[2] / "studies"
MINIMAL = '[study]\nworkload = "models.digits:Digits"\n'


def refusal(toml: str) -> str:
    """Returns what is said about a study file with these lines added."""
    tree = tomllib.loads(toml)
    study = {"name": "s", "workload": "models.digits:Digits"}
    if isinstance(tree.get("study", {}), dict):
        tree["study"] = study | tree.get("study", {})
    with pytest.raises(SpecError) as caught:
        parse_spec(tree, origin="x.toml")
    return str(caught.value)


def test_the_stem_of_the_file_names_the_study(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL, encoding="utf-8")
    assert parse_spec(read_spec(path), origin=str(path)).study.name == "mine"


def test_a_name_in_the_file_outranks_its_stem(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL + 'name = "other"\n', encoding="utf-8")
    assert parse_spec(read_spec(path), origin=str(path)).study.name == "other"


def test_settings_replace_what_the_file_says(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL + "[budget]\ntrials = 5\n", encoding="utf-8")
    assert read_spec(path, ["budget.trials=7"])["budget"]["trials"] == 7


def test_a_byte_order_mark_is_not_part_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL, encoding="utf-8-sig")
    assert read_spec(path)["study"]["workload"] == "models.digits:Digits"


@pytest.mark.parametrize("name", ["digits", "a b", 'quote"d', "ä 中", "a-b", "[x]", "<x>"])
def test_a_name_may_hold_what_can_be_shown_and_stored(name: str) -> None:
    tree = {"study": {"name": name, "workload": "models.digits:Digits"}}
    assert parse_spec(tree, origin="x").study.name == name


@pytest.mark.parametrize(
    "name", ["a\nb", "a\x1b[31m", "a\x7f", "\x85", " a", "-a", "a\\b", "x" * 201]
)
def test_a_name_that_could_act_on_a_terminal_or_a_path_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match=r"study\.name"):
        parse_spec({"study": {"name": name, "workload": "m:D"}}, origin="x")


@pytest.mark.parametrize("metric", ["a b", "a|b", "<b>", 'a"""b', "[red]", "", "a\nb"])
def test_a_metric_is_an_identifier(metric: str) -> None:
    with pytest.raises(SpecError, match=r"study\.metric"):
        parse_spec({"study": {"name": "s", "workload": "m:D", "metric": metric}}, origin="x")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "absent.toml"
    with pytest.raises(NotFoundError, match=r"absent\.toml: no such file") as caught:
        read_spec(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"[study\n", b"a = ", b"\xff\xfe\x00", b"a = 1\na = 2"])
def test_a_file_that_is_not_toml_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(SpecError, match=r"broken\.toml: not valid TOML"):
        read_spec(path)


def test_a_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        read_spec(tmp_path)


@pytest.mark.parametrize(
    "path", sorted({*STUDIES.glob("*.toml")} - {STUDIES / "suite.toml"}), ids=lambda path: path.name
)
def test_the_studies_that_are_shipped_are_valid(path: Path) -> None:
    spec = parse_spec(read_spec(path), origin=str(path))
    assert spec.study.name == path.stem
    assert spec.resolve().space.breadth in (1, 2, 3)


def test_a_suite_is_told_from_a_study() -> None:
    with pytest.raises(SpecError, match="'tuner suite run' takes it"):
        read_spec(STUDIES / "suite.toml")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("a=1", {"a": 1}),
        ("a.b.c=1.5", {"a": {"b": {"c": 1.5}}}),
        ("a=true", {"a": True}),
        ('a="quoted"', {"a": "quoted"}),
        ("a=plain text", {"a": "plain text"}),
        ("a=1h30m", {"a": "1h30m"}),
        ('a=["x", "y"]', {"a": ["x", "y"]}),
        ("a={ low = 1e-4, high = 0.1 }", {"a": {"low": 1e-4, "high": 0.1}}),
        ("a=x=y", {"a": "x=y"}),
        (" a = 1 ", {"a": 1}),
        ("a=", {"a": ""}),
    ],
)
def test_a_setting_is_read_as_toml_or_else_as_text(setting: str, expected: dict[str, Any]) -> None:
    assert apply_settings({}, [setting]) == expected


@pytest.mark.parametrize("setting", ["a", "", "=1", " =1"])
def test_a_setting_without_key_and_value_is_refused(setting: str) -> None:
    with pytest.raises(SpecError, match="write key=value"):
        apply_settings({}, [setting])


def test_a_setting_through_a_value_is_refused() -> None:
    with pytest.raises(SpecError, match=r"a\.b: a is a value here, not a table: write \[a\]"):
        apply_settings({"a": 1}, ["a.b=1"])


@pytest.mark.parametrize("unit", ["steps", "epochs", "examples"])
def test_a_length_that_is_set_replaces_the_length_of_the_file(unit: str) -> None:
    tree = {"budget": {"steps": 1, "epochs": 2, "examples": 3, "trials": 4}}
    assert apply_settings(tree, [f"budget.{unit}=9"])["budget"] == {unit: 9, "trials": 4}


def test_the_last_of_two_settings_holds() -> None:
    assert apply_settings({}, ["a.b=1", "a.b=2"]) == {"a": {"b": 2}}


@pytest.mark.parametrize(
    ("toml", "key", "value", "remedy"),
    [
        ("[budget]\ntrials = 0", "budget.trials", "0", "greater than or equal to 1"),
        ('[budget]\ntrials = "ten"', "budget.trials", "'ten'", "valid integer"),
        ("[budget]\ntrials = 2.5", "budget.trials", "2.5", "integer"),
        ("[budget]\nevaluations = 201", "budget.evaluations", "201", "less than or equal to 200"),
        ("[budget]\nsteps = 3\nepochs = 2", "budget", "'steps', 'epochs'", "exactly one of"),
        ("[budget]\nepochs = inf", "budget.epochs", "inf", "finite"),
        ('[budget]\nwall_time = "3x"', "budget.wall_time", "'3x'", "1h30m"),
        ("[budget]\nwall_time = true", "budget.wall_time", "true", "number"),
        ('[search]\nsampler = "cma"', "search.sampler", "'cma'", "did you mean 'cmaes'?"),
        ('[search]\npruner = "asa"', "search.pruner", "'asa'", "did you mean 'asha'?"),
        ("[search]\nseed = -1", "search.seed", "-1", "greater than or equal to 0"),
        ('[study]\nname = "a/b"', "study.name", "'a/b'", "nor hold a slash"),
        ('[study]\nname = "-a"', "study.name", "'-a'", "must not start with '-'"),
        ('[study]\nname = ""', "study.name", "''", "at least 1 character"),
        ('[study]\nworkload = "digits"', "study.workload", "'digits'", "models.digits:Digits"),
        ('[study]\nworkload = "m:A.B"', "study.workload", "'m:A.B'", "models.digits:Digits"),
        ('[study]\ndirection = "up"', "study.direction", "'up'", "'minimize' or 'maximize'"),
        ('[space]\noptimizers = ["adm"]', "space.optimizers", "'adm'", "did you mean 'adam'"),
        ('[space]\noptimizers = ["sgd", "sgd"]', "space.optimizers", "'sgd'", "name each once"),
        ("[space]\noptimizers = []", "space.optimizers", "[]", "at least 1 item"),
        ('[space]\nschedules = ["cosin"]', "space.schedules", "'cosin'", "did you mean 'cosine'"),
        ("[space]\nbreadth = 4", "space.breadth", "4", "1, 2 or 3"),
        ("[train]\nbatch_size = 0", "train.batch_size", "0", "whole number above 0"),
        ("[train]\ngrad_clip = 0", "train.grad_clip", "0", "greater than 0"),
        ('[train]\nprecision = "half"', "train.precision", "'half'", "'bfloat16'"),
        ('[optimizer.adam]\nlr = "fast"', "optimizer.adam.lr", "'fast'", "not a number"),
        ("[optimizer.adam]\nlr = nan", "optimizer.adam.lr", "nan", "finite"),
        ("[optimizer.adam]\nlr = [1]", "optimizer.adam.lr", "[1]", "choices = [...]"),
        (
            "[optimizer.adam]\nlr = { low = 0.2, high = 0.1 }",
            "optimizer.adam.lr",
            "low = 0.2",
            "swap them",
        ),
        (
            "[optimizer.adam]\nlr = { low = 0, high = 0.1, log = true }",
            "optimizer.adam.lr",
            "low = 0",
            "above 0",
        ),
        (
            "[optimizer.adam]\nlr = { choices = [0.1, 0.1] }",
            "optimizer.adam.lr",
            "[0.1, 0.1]",
            "must all be different",
        ),
        (
            "[optimizer.adam]\none_minus_beta1 = 1.5",
            "optimizer.adam.one_minus_beta1",
            "1.5",
            "out of bounds: beta1 is at least 0 and below 1",
        ),
        ("[optimizer.adam]\nlr = -0.1", "optimizer.adam.lr", "-0.1", "lr is above 0"),
        (
            "[schedule.linear]\nfinal_ratio = true",
            "schedule.linear.final_ratio",
            "True",
            "not a number",
        ),
    ],
)
def test_an_error_holds_the_file_the_key_the_value_and_the_remedy(
    toml: str, key: str, value: str, remedy: str
) -> None:
    said = refusal(toml)
    assert said.startswith(f"x.toml: {key}")
    # The key itself may hold digits, so the value is looked for behind it.
    assert value in said.removeprefix(f"x.toml: {key}")
    assert remedy in said


@pytest.mark.parametrize(
    ("toml", "key", "nearest"),
    [
        ("[budgt]\ntrials = 1", "budgt", "budget"),
        ("[budget]\ntrils = 1", "budget.trils", "trials"),
        ("[study]\nmetrik = 'a'", "study.metrik", "metric"),
        ("[optimizer.adam]\nbeta_1 = 0.9", "beta_1", "beta1"),
        ("[schedule.cosine]\nfinal = 0.9", "final", "final_ratio"),
        ("[optimizer.adm]\nlr = 0.9", "adm", "adam"),
        ("[schedule.stepp]\ngamma = 0.9", "stepp", "step"),
        ("[optimizer.adam]\nuse_weight_dekay = true", "use_weight_dekay", "use_weight_decay"),
        ("[optimizer.adam]\nlr = { low = 1, high = 2, lag = true }", "optimizer.adam.lr", "log"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest(toml: str, key: str, nearest: str) -> None:
    said = refusal(toml)
    assert said.startswith("x.toml: ")
    assert key in said
    assert f"did you mean {nearest!r}?" in said


def test_a_missing_workload_is_asked_for() -> None:
    with pytest.raises(SpecError, match=r"x\.toml: study\.workload is missing: add it"):
        parse_spec({"study": {"name": "s"}}, origin="x.toml")


def test_an_override_of_what_is_not_chosen_is_named() -> None:
    said = refusal('[space]\noptimizers = ["adam"]\n[optimizer.sgd]\nlr = 0.1')
    assert said == "x.toml: [optimizer.sgd] is set, but sgd is not in space.optimizers."


def test_every_key_that_breaks_a_rule_has_a_line_of_its_own() -> None:
    said = refusal("[budget]\ntrials = 0\nevaluations = 0\n[train]\ngrad_clip = -1")
    keys = [line.split(": ")[1].split(" = ")[0] for line in said.splitlines()]
    assert keys == ["budget.trials", "budget.evaluations", "train.grad_clip"]


@pytest.mark.parametrize(
    "toml",
    [
        "study = 3",
        "optimizer = 3",
        "[optimizer]\nadam = 3",
        "[optimizer.adam]\nlr = { choices = 3 }",
        "[optimizer.adam]\nlr = { low = 1, high = [2] }",
        "[optimizer.adam]\nlr = 1" + 400 * "0",
        "[optimizer.adam]\nlr = { low = 1, high = 1" + 400 * "0" + " }",
        "[train]\nbatch_size = { choices = [[1]] }",
    ],
    ids=lambda toml: toml[:40],
)
def test_a_malformed_table_is_answered_in_one_plain_line(toml: str) -> None:
    said = refusal(toml)
    assert said.startswith("x.toml: ")
    assert "\n" not in said
    assert "pydantic" not in said


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("digits", "studies/digits.toml"),
        ("digits.toml", "studies/digits.toml"),
        ("studies/digits", "studies/digits.toml"),
        ("studies/digtis.toml", "studies/digits.toml"),
        ("mien.toml", "mine.toml"),
    ],
)
def test_a_missing_file_is_looked_for_where_study_files_lie(
    tmp_path: Path, typed: str, meant: str
) -> None:
    (tmp_path / "studies").mkdir()
    for name in ("studies/digits.toml", "studies/parabola.toml", "mine.toml"):
        (tmp_path / name).touch()
    with pytest.raises(NotFoundError) as caught:
        read_spec(tmp_path / typed)
    assert str(caught.value).endswith(f"no such file. Did you mean {tmp_path / meant}?")


def test_a_missing_file_like_no_other_says_what_to_give(tmp_path: Path) -> None:
    (tmp_path / "other.toml").touch()
    with pytest.raises(NotFoundError, match=r"Give the path of a study file, such as studies/"):
        read_spec(tmp_path / "x")
