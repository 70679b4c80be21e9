"""Which earlier study a new one starts from, and what is said where none serves."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any

import pytest
from optuna.trial import TrialState

from tests.conftest import MakeSpec
from tests.store.single_trials import SingleTrials
from tuner.domain.spec import StudySpec
from tuner.domain.study_file import parse_spec
from tuner.domain.trials import WARM_START
from tuner.errors import NotFoundError, SpecError
from tuner.search import Proposer
from tuner.service.open_study import Opened, open_study
from tuner.service.warm_start import add_warm_start
from tuner.store import Database, Studies, StudyHandle, read_records
from tuner.store.identity import SPEC
from tuner.store.leases.workers import WorkerIdentity


def written(warm_start: str | None = None, **tables: Any) -> StudySpec:
    """Returns what a study file says that asks to start from an earlier study."""
    tree: dict[str, Any] = {
        "study": {"name": "later", "workload": "models.parabola:Parabola"},
        "budget": {"steps": 60, "trials": 20},
        "space": {"optimizers": ["sgd", "adam"]},
        "search": {} if warm_start is None else {"warm_start": warm_start},
    }
    return parse_spec(tree | tables, origin="later.toml")


def train(database: Database, spec: StudySpec, name: str, *values: float) -> StudyHandle:
    """Creates a study, and ends a trial of it with each value."""
    spec = spec.model_copy(update={"study": spec.study.model_copy(update={"name": name})})
    study = Studies(database).create(spec)
    ledger = SingleTrials(database, study, WorkerIdentity(name, "host", 1, "cpu", "0"))
    ledger.register(0.0, lambda ordinal: ordinal)
    proposer = Proposer(spec, seed=0)
    for value in values:
        lease = ledger.start_one(proposer.openings(), proposer.propose())
        assert lease is not None
        attributes = {"steps": spec.budget.steps or 1}
        ledger.finish_one(lease, TrialState.COMPLETE, value, attributes)
    return study


@pytest.fixture
def earlier(database: Database, make_spec: MakeSpec) -> StudyHandle:
    """Returns a study of 20 steps with three complete trials, the second the best."""
    return train(database, make_spec(), "earlier", 0.3, 0.1, 0.2)


def create(database: Database, spec: StudySpec) -> Opened:
    return open_study(lambda create: database, spec)


@pytest.mark.parametrize("asked", ["earlier", "auto"])
def test_a_study_starts_from_the_best_of_an_earlier_one_and_says_so(
    database: Database, earlier: StudyHandle, asked: str
) -> None:
    opened = create(database, written(asked))
    start = opened.study.spec.warm_start
    assert start is not None
    best = read_records(database, earlier)[1]
    assert (start.study, start.trials, start.value) == ("earlier", 3, 0.1)
    assert start.openings[0].params["optimizer"] == best.optimizer
    said = list(opened.announcements())
    expected = "Starts from the best of 'earlier' (3 complete, best 0.1): 3 configurations"
    assert any(line.startswith(expected) for line in said), said
    assert any("learning rates times 0.72" in line for line in said)


def test_the_best_time_of_an_earlier_study_is_told_as_a_time(
    database: Database, make_spec: MakeSpec
) -> None:
    study = {"workload": "models.parabola:Parabola", "name": "earlier"}
    aim = {"objective": "time_to_target", "target": 0.5}
    train(database, make_spec(study=study | aim), "earlier", 12.0, 20.0, 15.0)
    said = "\n".join(create(database, written("earlier")).announcements())
    assert "Starts from the best of 'earlier' (3 complete, best 12 steps)" in said


def test_what_a_study_starts_with_outlives_the_earlier_one(
    database: Database, earlier: StudyHandle
) -> None:
    create(database, written("earlier"))
    spec = Studies(database).find("later").spec
    before = [trial.params for trial in Proposer(spec, 0).openings()]
    Studies(database).delete(earlier)
    found = Studies(database).find("later").spec
    assert found == spec
    after = Proposer(found, 7).openings()
    assert [trial.params for trial in after] == before
    assert after[0].user_attrs["preset"] == WARM_START


def test_a_study_that_exists_is_found_again_whatever_became_of_the_earlier_one(
    database: Database, earlier: StudyHandle
) -> None:
    first = create(database, written("earlier"))
    Studies(database).delete(earlier)
    for asked in ("earlier", None):
        again = create(database, written(asked))
        assert not again.created
        assert again.study == first.study
    with pytest.raises(SpecError, match=r"search\.warm_start: earlier in the database, auto now"):
        create(database, written("auto"))


@pytest.mark.parametrize("asked", ["off", None])
def test_a_study_starts_cold_unless_it_is_asked_otherwise(
    database: Database, earlier: StudyHandle, asked: str | None
) -> None:
    opened = create(database, written(asked))
    assert opened.study.spec.warm_start is None
    said = "\n".join(opened.announcements())
    assert "\nStarts from" not in said
    assert "starts cold." not in said


def test_of_several_the_one_of_nearest_length_then_of_most_optimizers_and_trials_is_taken(
    database: Database, make_spec: MakeSpec
) -> None:
    values = (0.3, 0.2, 0.1)
    space = {"optimizers": ["sgd", "adam"], "schedules": ["constant"]}

    def add(name: str, steps: int, optimizers: list[str], *more: float) -> None:
        budget = {"trials": 9, "steps": steps, "evaluations": 4}
        own = space | {"optimizers": optimizers}
        train(database, make_spec(budget=budget, space=own), name, *values, *more)

    taken = []
    for name, steps, optimizers, more in (
        ("a_short", 20, ["sgd", "adam"], ()),
        ("b_narrow", 50, ["adam"], (0.4, 0.5)),
        ("c_wide", 50, ["sgd", "adam"], ()),
        ("d_wide", 50, ["sgd", "adam"], (0.4,)),
        ("e_long", 600, ["sgd", "adam"], (0.4, 0.5)),
    ):
        add(name, steps, optimizers, *more)
        start = add_warm_start(written("auto").resolve(), database).warm_start
        taken.append(start and start.study)
    assert taken == ["a_short", "b_narrow", "c_wide", "d_wide", "d_wide"]


@pytest.mark.parametrize(
    "study",
    [
        {"metric": "train_loss"},
        {"direction": "maximize"},
        {"workload": "models.digits:Digits"},
    ],
)
def test_a_study_of_another_question_is_passed_over(
    database: Database, make_spec: MakeSpec, study: dict[str, str]
) -> None:
    own = {"name": "other", "workload": "models.parabola:Parabola"} | study
    train(database, make_spec(study=own), "other", 0.1, 0.2, 0.3)
    opened = create(database, written("auto"))
    assert opened.study.spec.warm_start is None
    assert any("it starts cold" in line for line in opened.announcements())


def test_a_study_of_few_complete_trials_is_passed_over_but_can_be_named(
    database: Database, make_spec: MakeSpec
) -> None:
    train(database, make_spec(), "small", 0.1, 0.2)
    assert add_warm_start(written("auto").resolve(), database).warm_start is None
    named = add_warm_start(written("small").resolve(), database).warm_start
    assert named is not None
    assert named.trials == 2


def test_another_workload_can_be_named(database: Database, earlier: StudyHandle) -> None:
    study = {"name": "later", "workload": "models.digits:Digits"}
    start = add_warm_start(written("earlier", study=study).resolve(), database).warm_start
    assert start is not None


def test_an_unknown_study_is_an_error_with_the_nearest_name(
    database: Database, earlier: StudyHandle
) -> None:
    with pytest.raises(NotFoundError, match=r"'earlir': .* did you mean 'earlier'\?"):
        create(database, written("earlir"))
    assert Studies(database).get("later") is None


def test_without_a_database_no_study_can_be_named_and_auto_takes_none() -> None:
    with pytest.raises(NotFoundError, match="there is no database yet"):
        add_warm_start(written("earlier").resolve(), None)
    assert add_warm_start(written("auto").resolve(), None).warm_start is None


@pytest.mark.parametrize(
    ("study", "said"),
    [
        ({"metric": "train_loss"}, "that study's metric is val_loss, and this one's is train_loss"),
        ({"direction": "maximize"}, "direction is minimize, and this one's is maximize"),
    ],
)
def test_a_named_study_of_another_question_is_refused(
    database: Database, earlier: StudyHandle, study: dict[str, str], said: str
) -> None:
    own = {"name": "later", "workload": "models.parabola:Parabola"} | study
    with pytest.raises(SpecError, match=said):
        create(database, written("earlier", study=own))
    assert Studies(database).get("later") is None


def test_a_named_study_that_has_nothing_to_teach_is_refused(
    database: Database, make_spec: MakeSpec
) -> None:
    train(database, make_spec(), "empty")
    with pytest.raises(SpecError, match="'empty': that study has no complete trial yet"):
        create(database, written("empty"))
    space = {"optimizers": ["adam"]}
    train(database, make_spec(space=space), "adams", 0.1)
    with pytest.raises(SpecError, match="no optimizer of this study has a complete trial there"):
        create(database, written("adams", space={"optimizers": ["muon"]}))


def test_a_damaged_study_is_passed_over_and_refused_by_name(
    database: Database, earlier: StudyHandle, make_spec: MakeSpec, database_url: str
) -> None:
    broken = train(database, make_spec(budget={"steps": 60, "trials": 9}), "broken", 0.1, 0.2, 0.3)
    path = database_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as connection, connection:
        spec = broken.spec.to_json() | {"space": {"optimizers": ["nonsense"]}}
        connection.execute(
            "UPDATE study_user_attributes SET value_json = ? WHERE key = ? AND study_id = ?",
            (json.dumps(spec), SPEC, broken.study_id),
        )
    start = add_warm_start(written("auto").resolve(), database).warm_start
    assert start is not None
    assert start.study == "earlier"
    with pytest.raises(SpecError, match="there is no optimizer 'nonsense'"):
        create(database, written("broken"))


def test_damaged_trials_teach_nothing(
    database: Database, earlier: StudyHandle, database_url: str
) -> None:
    path = database_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "UPDATE trial_params SET param_value = 'x' WHERE param_name LIKE '%.lr' AND trial_id ="
            " (SELECT trial_id FROM trial_values WHERE value = 0.1)"
        )
    with pytest.warns(UserWarning, match="left out"):
        start = add_warm_start(written("earlier").resolve(), database).warm_start
    assert start is not None
    assert (start.trials, start.value) == (2, 0.2)


def test_a_spec_that_has_taken_something_over_keeps_it(
    database: Database, earlier: StudyHandle
) -> None:
    spec = add_warm_start(written("earlier").resolve(), database)
    Studies(database).delete(earlier)
    assert add_warm_start(spec, database) is spec


@pytest.mark.parametrize("trials", [1, 2])
def test_a_study_too_small_for_openings_says_that_it_takes_none(
    database: Database, earlier: StudyHandle, trials: int
) -> None:
    opened = create(database, written("earlier", budget={"steps": 20, "trials": trials}))
    assert any(line.endswith(": no configuration.") for line in opened.announcements())
