from __future__ import annotations

from pathlib import Path

import pytest

from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.suite import Suite, read_suite
from tuner.errors import NotFoundError, SpecError

STUDIES = Path(__file__).parents[2] / "studies"

SUITE = """
[budget]
trials = 16
evaluations = 20

[space]
optimizers = ["sgd", "adam", "adamw", "muon"]

[[workload]]
study = "digits.toml"
target = 0.1

[[workload]]
name = "curve"
workload = "models.parabola:Parabola"
budget = { epochs = 3 }
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "digits.toml").write_text((STUDIES / "digits.toml").read_text())
    return tmp_path / "mine.toml"


def read(path: Path, text: str, *settings: str) -> Suite:
    path.write_text(text, encoding="utf-8")
    return read_suite(path, settings)


def refusal(path: Path, text: str, *settings: str) -> str:
    with pytest.raises(SpecError) as caught:
        read(path, text, *settings)
    return str(caught.value)


def test_every_workload_has_a_study_that_compares_named_after_both(path: Path) -> None:
    suite = read(path, SUITE)
    assert (suite.plan.name, suite.plan.baseline) == ("mine", "adamw")
    assert suite.plan.targets == {"digits": 0.1, "curve": None}
    digits, curve = suite.specs.values()
    assert (digits.study.name, curve.study.name) == ("mine.digits", "mine.curve")
    assert {spec.search.mode for spec in suite.specs.values()} == {"compare"}


def test_a_workload_outranks_the_suite_and_that_outranks_the_study_file(path: Path) -> None:
    text = SUITE.replace("target = 0.1", 'metric = "val_accuracy"\ndirection = "maximize"')
    digits, curve = read(path, text).specs.values()
    assert (digits.budget.trials, digits.budget.steps, digits.budget.evaluations) == (16, 500, 20)
    assert (digits.study.metric, digits.study.direction) == ("val_accuracy", "maximize")
    assert (curve.budget.trials, curve.budget.epochs) == (16, 3)
    other = read(path, text.replace("[[workload]]", "[[workload]]\ntrain = { batch_size = 64 }", 1))
    assert other.specs["digits"].train.batch_sizes == (64,)


def test_a_length_of_the_workload_takes_the_place_of_the_study_file_s(path: Path) -> None:
    text = SUITE.replace("target = 0.1", "budget = { epochs = 2 }")
    budget = read(path, text).specs["digits"].budget
    assert (budget.steps, budget.epochs) == (None, 2)


def test_settings_replace_values_of_every_study_or_of_the_suite(path: Path) -> None:
    settings = ("budget.steps=30", "suite.baseline=sgd", "suite.name=other")
    suite = read(path, SUITE, *settings)
    assert {spec.budget.steps for spec in suite.specs.values()} == {30}
    assert (suite.plan.baseline, suite.plan.name) == ("sgd", "other")
    assert suite.specs["curve"].study.name == "other.curve"


def test_the_suite_that_ships_is_valid_and_has_three_workloads() -> None:
    suite = read_suite(STUDIES / "suite.toml")
    assert len(suite.specs) == 3
    assert len(suite.plan.optimizers) >= 4


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("[budget]", "[budgets]", "budgets is not a known key: did you mean 'budget'?"),
        ("target = 0.1", "targets = 0.1", "workload 1: targets is not a known key: did you mean"),
        ("trials = 16", "trils = 16", "workload digits: budget.trils is not a known key"),
        ("epochs = 3", "epoch = 3", "workload curve: budget.epoch is not a known key"),
        ("trials = 16", "trials = 15", "cannot be shared out equally among 4 optimizers"),
        ("epochs = 3", "epochs = 3, trials = 32", "budget.trials differs (16 for digits, 32 for"),
        (
            '"adamw", ',
            '"nadam", ',
            "suite.baseline = 'adamw' is not among space.optimizers: did you mean",
        ),
        ('name = "curve"', 'name = "digits"', "two workloads are named 'digits'"),
        ('study = "digits.toml"', "", "workload 1: give either study = "),
        ('name = "curve"', 'study = "digits.toml"', "workload 2: give either study = "),
        ('"models.parabola:Parabola"', '"parabola"', "must be an import string such as"),
        ("[space]", "[confirm]\ntop = 0\n[space]", "confirm.top = 0: a suite is scored by"),
        ("[space]", '[search]\nmode = "search"\n[space]', "a suite compares optimizers"),
        ("[space]", '[search]\npruner = "median"\n[space]', "leave pruner out"),
        ("[space]", "[train]\nbatch_size = { choices = [32, 64] }\n[space]", "several choices"),
        ("[space]", '[suite]\nname = "a/b"\n[space]', "suite.name = 'a/b': must not start with"),
        ("[space]", "budget.x\n[space]", "not valid TOML"),
        ("trials = 16", "trials = ", "not valid TOML"),
        ("target = 0.1", 'target = "low"', "workload 1: target = 'low'"),
        ("[budget]\ntrials = 16\nevaluations = 20", "budget = 3", "budget = 3: must be a table"),
    ],
)
def test_a_file_that_breaks_a_rule_is_told_which(
    path: Path, before: str, after: str, told: str
) -> None:
    assert before in SUITE
    message = refusal(path, SUITE.replace(before, after, 1))
    assert told in message
    assert str(path) in message


def test_optimizers_that_differ_between_workloads_are_refused(path: Path) -> None:
    text = (
        SUITE.replace("[space]", "")
        .replace("16", "32")
        .replace('optimizers = ["sgd", "adam", "adamw", "muon"]', "")
    )
    (path.parent / "other.toml").write_text(
        '[study]\nworkload = "models.parabola:Parabola"\n[space]\noptimizers = ["adam", "adamw"]\n'
    )
    text = text.replace(
        'name = "curve"\nworkload = "models.parabola:Parabola"', 'study = "other.toml"'
    )
    assert "space.optimizers differs" in refusal(path, text)


def test_a_study_that_races_to_a_target_is_refused(path: Path) -> None:
    file = path.parent / "digits.toml"
    aim = '[study]\nobjective = "time_to_target"\ntarget = 0.2\n'
    file.write_text(file.read_text().replace("[study]\n", aim))
    assert "give target = beside the workload" in refusal(path, SUITE)


def test_more_optimizers_than_can_run_again_are_refused(path: Path) -> None:
    wrapped = [f"lookahead({name})" for name in OPTIMIZERS if f"lookahead({name})" in OPTIMIZERS]
    names = [*OPTIMIZERS, *wrapped][:49]
    text = SUITE.replace('["sgd", "adam", "adamw", "muon"]', str(names)).replace("16", "196")
    assert "at most 48 can run again" in refusal(path, text)


@pytest.mark.parametrize("missing", ["mine.toml", "digits.toml"])
def test_a_file_that_does_not_exist_is_named(path: Path, missing: str) -> None:
    path.write_text(SUITE)
    (path.parent / missing).unlink()
    with pytest.raises(NotFoundError, match=rf"{missing}: no such file"):
        read_suite(path)


def test_a_study_is_told_from_a_suite() -> None:
    with pytest.raises(SpecError, match="'tuner run' takes it"):
        read_suite(STUDIES / "digits.toml")


def test_a_suite_without_workloads_is_refused(path: Path) -> None:
    assert "workload is missing: add it" in refusal(path, "[budget]\ntrials = 16\n")
    assert "workload" in refusal(path, "workload = []\n")
