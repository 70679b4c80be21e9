"""The commands and `tuner.Study` do the same: the same databases, outputs and errors."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import tuner
from tuner.errors import TunerError
from tuner.store import Studies, open_database, read_records
from tuner.store.identity import STATE
from tuner.store.optuna import tables as ot

Tuner = Callable[..., subprocess.CompletedProcess[str]]

FILE = """
[study]
workload = "models.parabola:Parabola"

[budget]
trials = 6
steps = 24
evaluations = 4

[space]
optimizers = ["sgd", "adam"]

[search]
sampler = "random"
pruner = "median"

[train]
batch_size = 32

[confirm]
top = 0
"""
DO: dict[str, Any] = {"device": "cpu", "fuse": "off", "quiet": True}
TYPED = ("--device", "cpu", "--fuse", "off", "-q")


class Both:
    """Does the same by commands and from Python, each in a database of its own.

    Args:
        run: Runs a command in the project.
        folder: The project.
    """

    def __init__(self, run: Tuner, folder: Path) -> None:
        self.run = run
        self.urls = [f"sqlite:///{folder / name}.db" for name in ("typed", "called")]

    @property
    def called(self) -> str:
        """The database of what is done from Python."""
        return self.urls[1]

    def type(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs a command on the other database."""
        return self.run(*words, "--storage", self.urls[0])

    def check_same(self, name: str = "same") -> list[dict[str, Any]]:
        """Checks that both databases hold the same of a study, and returns its trials."""
        typed, called = (describe(url, name) for url in self.urls)
        assert typed == called
        trials: list[dict[str, Any]] = called["trials"]
        return trials


def describe(url: str, name: str) -> dict[str, Any]:
    """Returns what a database holds of a study but for identities and times."""
    database = open_database(url)
    study = Studies(database).find(name)
    with database.read() as connection:
        state = connection.execute(
            sa.select(ot.study_attributes.c.value_json).where(ot.study_attributes.c.key == STATE)
        ).scalar_one_or_none()
    records = read_records(database, study)
    database.close()
    spec = study.spec.to_json()
    spec.get("confirmation", {}).pop("study", None)  # an identity
    return {
        "spec": spec,
        "state": state,
        "trials": [
            {
                "number": record.number,
                "outcome": record.outcome.value,
                "params": record.proposal.params,
                "value": record.value,
                "evaluations": dict(record.evaluations),
            }
            for record in records
        ],
    }


@pytest.fixture
def both(tuner: Tuner, project: Path) -> Both:
    """Returns what does the same both ways, in a project with a study file."""
    (project / "same.toml").write_text(FILE)
    return Both(tuner, project)


@pytest.fixture
def quick(typed: Tuner, project: Path) -> Both:
    """Returns the same for commands that need no process of their own."""
    (project / "same.toml").write_text(FILE)
    return Both(typed, project)


@pytest.mark.slow
class TestCommandsAndPython:
    def test_create_the_same_study_and_train_it_to_the_same_end(self, both: Both) -> None:
        for words in (("study", "create", "same.toml"), ("study", "run", "same", *TYPED)):
            options = () if "run" in words else ("--device", "cpu")
            assert both.type(*words, *options).returncode == 0
        study = tuner.Study.create("same.toml", storage=both.called, device="cpu", quiet=True)
        study.run(**DO)
        trials = both.check_same()
        assert {trial["outcome"] for trial in trials} >= {"complete"}

        assert both.type("study", "run", "same", "--trials", "8", *TYPED).returncode == 0
        study.run(trials=8, **DO)
        assert len(both.check_same()) == 8

        assert both.type(
            "study", "confirm", "same", "--top", "1", "--seeds", "5", *TYPED
        ).returncode in (0, 1)
        study.confirm(top=1, seeds=5, **DO)
        assert both.check_same("same.confirm")

    def test_tune_is_run(self, both: Both, project: Path) -> None:
        ran = both.type(
            *("run", "--workload", "models.parabola:Parabola", "--name", "same"),
            *("--optimizers", "sgd,adam", "--set", "budget.trials=4", "--set", "budget.steps=24"),
            *("--set", "search.sampler=random", *TYPED),
        )
        assert ran.returncode == 0, ran.stderr
        tuner.tune(
            "models.parabola:Parabola",
            name="same",
            storage=both.called,
            optimizers=["sgd", "adam"],
            trials=4,
            steps=24,
            search={"sampler": "random"},
            **DO,
        )
        both.check_same()

    def test_report_and_export_the_same(self, both: Both, project: Path) -> None:
        study = tuner.Study.create("same.toml", storage=both.called, device="cpu", quiet=True)
        study.run(**DO)
        both.urls[0] = both.called
        for style in ("terminal", "markdown", "json"):
            shown = both.type("study", "report", "same", "--format", style).stdout
            assert shown.strip() == study.report().render(style).strip()
        both.type("study", "report", "same", "--format", "html", "--output", "typed.html")
        study.report("called.html")
        pages = [(project / f"{name}.html").read_text() for name in ("typed", "called")]
        assert len(pages[0]) == pytest.approx(len(pages[1]), abs=40)  # it tells its moment
        exported = json.loads(
            both.type("study", "export", "same", "--all", "--format", "json").stdout
        )
        assert [trial["value"] for trial in exported] == [
            trial["value"] for trial in describe(both.called, "same")["trials"]
        ]


class TestSteering:
    @pytest.mark.parametrize("order", ["pause", "stop", "resume"])
    def test_orders_leave_the_same_state(self, quick: Both, order: str) -> None:
        quick.type("study", "create", "same.toml", "--no-check", "-q")
        study = tuner.Study.create("same.toml", storage=quick.called, check=False, quiet=True)
        assert quick.type("study", order, "same", "-q").returncode == 0
        getattr(study, order)()
        quick.check_same()

    def test_delete_leaves_nothing(self, quick: Both) -> None:
        quick.type("study", "create", "same.toml", "--no-check", "-q")
        tuner.Study.create("same.toml", storage=quick.called, check=False, quiet=True).delete()
        assert quick.type("study", "delete", "same", "--yes").returncode == 0
        assert json.loads(quick.type("study", "list", "--json").stdout) == []
        assert tuner.Study.list(quick.called) == []

    def test_a_changed_budget_is_told_in_the_same_words(
        self, quick: Both, capsys: pytest.CaptureFixture[str]
    ) -> None:
        quick.type("study", "create", "same.toml", "--no-check", "-q")
        raised = quick.type("study", "create", "same.toml", "--set", "budget.trials=9")
        tuner.Study.create("same.toml", storage=quick.called, check=False, quiet=True)
        tuner.Study.create("same.toml", storage=quick.called, settings={"budget.trials": 9})
        told = "Study 'same' now has a budget of 9 trials\n"
        assert told in raised.stderr
        assert told in capsys.readouterr().err
        quick.check_same()


_WRONG: list[tuple[tuple[str, ...], Callable[[str], object]]] = [
    (
        ("study", "run", "none"),
        lambda url: tuner.Study("none", url),
    ),
    (
        ("study", "create", "missing.toml"),
        lambda url: tuner.Study.create("missing.toml", storage=url),
    ),
    (
        ("study", "create", "same.toml", "--set", "budget.steps=30"),
        lambda url: tuner.Study.create("same.toml", storage=url, settings={"budget.steps": 30}),
    ),
    (
        ("study", "create", "same.toml", "--name", "x", "--set", "search.smapler=tpe"),
        lambda url: tuner.Study.create(
            "same.toml", name="x", storage=url, settings={"search.smapler": "tpe"}
        ),
    ),
    (
        ("study", "create", "same.toml", "--name", "x", "--workload", "models.parabola:Parabel"),
        lambda url: tuner.Study.create(
            "same.toml", name="x", storage=url, workload="models.parabola:Parabel"
        ),
    ),
    (
        ("study", "confirm", "same"),
        lambda url: tuner.Study("same", url).confirm(top=1),
    ),
]


@pytest.mark.parametrize(
    ("words", "call"), [pytest.param(*wrong, id=" ".join(wrong[0])) for wrong in _WRONG]
)
def test_errors_say_the_same(
    quick: Both, words: tuple[str, ...], call: Callable[[str], object]
) -> None:
    for url in quick.urls:
        tuner.Study.create("same.toml", storage=url, check=False, quiet=True)
    if "confirm" in words:
        words = (*words, "--top", "1")
    typed = quick.type(*words)
    assert typed.returncode == 2
    with pytest.raises(TunerError) as told:
        call(quick.called)
    said = typed.stderr.removeprefix("Error: ").strip().replace("typed.db", "called.db")
    assert said == str(told.value).strip()
