from __future__ import annotations

from collections.abc import Callable

import pytest

from tuner.domain.budget import Budget
from tuner.domain.regimes import Arrival
from tuner.domain.spec import StudySpec
from tuner.domain.study_file import parse_spec
from tuner.errors import SpecError
from tuner.service.open_study import Opened, StudyCheck, open_study
from tuner.store import Database, Studies


def spec_with(**budget: object) -> StudySpec:
    """Returns what a study file says, its defaults not filled in."""
    tree = {
        "study": {"name": "small", "workload": "models.parabola:Parabola"},
        "budget": {"steps": 20, **budget},
        "space": {"optimizers": ["sgd", "adam"]},
    }
    return parse_spec(tree, origin="test")


def reopen(
    database: Database, first: dict[str, object], then: dict[str, object], *keys: str
) -> tuple[Opened, Budget]:
    def connect(create: bool) -> Database:
        return database

    open_study(connect, spec_with(**first))
    opened = open_study(connect, spec_with(**then), keys)
    return opened, open_study(connect, spec_with()).study.spec.budget


@pytest.mark.parametrize(
    ("has", "says"), [({"trials": 60}, {"trials": 40}), ({"wall_time": "30m"}, {"wall_time": "9m"})]
)
def test_file_alone_never_lowers_a_budget(
    database: Database, has: dict[str, object], says: dict[str, object]
) -> None:
    opened, budget = reopen(database, has, says)
    [(key, (kept, said))] = opened.kept.items()
    assert (key, kept) == (next(iter(has)), getattr(spec_with(**has).budget, key))
    assert said == getattr(spec_with(**says).budget, key)
    assert opened.changed == {}
    assert getattr(budget, key) == kept


def test_file_puts_no_limit_on_time_where_there_was_none(database: Database) -> None:
    opened, budget = reopen(database, {}, {"wall_time": "9m"})
    assert opened.kept == {"wall_time": (None, 540.0)}
    assert budget.wall_time is None


@pytest.mark.parametrize("key", ["budget.trials", "budget"])
def test_setting_lowers_a_budget(database: Database, key: str) -> None:
    opened, budget = reopen(database, {"trials": 60}, {"trials": 40}, key)
    assert (opened.changed, opened.kept) == ({"trials": 40}, {})
    assert budget.trials == 40


def test_setting_of_one_budget_lowers_no_other(database: Database) -> None:
    has: dict[str, object] = {"trials": 60, "wall_time": 600}
    opened, budget = reopen(database, has, {"trials": 40, "wall_time": 60}, "budget.wall_time")
    assert (budget.trials, budget.wall_time) == (60, 60)
    assert opened.changed == {"wall_time": 60}
    assert opened.kept == {"trials": (60, 40)}


def test_file_raises_a_budget(database: Database) -> None:
    opened, budget = reopen(database, {"trials": 30, "wall_time": 60}, {"trials": 40})
    assert (opened.changed, opened.kept) == ({"trials": 40}, {})
    assert (budget.trials, budget.wall_time) == (40, 60)


@pytest.mark.parametrize("trials", [20, 90])
def test_what_a_file_leaves_out_stays_as_it_is(database: Database, trials: int) -> None:
    opened, budget = reopen(database, {"trials": trials, "wall_time": 60}, {})
    assert (opened.changed, opened.kept) == ({}, {})
    assert (budget.trials, budget.wall_time) == (trials, 60)


@pytest.mark.parametrize(("trials", "announced"), [(9, False), (10, True)])
def test_defaults_that_a_file_does_not_allow_are_announced_where_a_study_ends_with_some(
    database: Database, trials: int, announced: bool
) -> None:
    tree = {
        "study": {"name": "small", "workload": "models.parabola:Parabola"},
        "budget": {"steps": 20, "trials": trials},
        "space": {"optimizers": ["sgd", "adam"]},
        "optimizer": {"adam": {"lr": {"low": 0.01, "high": 0.1}}},
    }
    opened = open_study(lambda create: database, parse_spec(tree, origin="test"))
    line = (
        "Adam's default lr 0.001 lies outside your range [0.01, 0.1]: "
        "the trial of the defaults has 0.01."
    )
    assert (line in opened.announcements()) is announced


def seeing(arrival: Arrival) -> Callable[[StudySpec, bool], StudyCheck]:
    """Returns a check that sees what it is told to, where it looks."""
    return lambda spec, looks: StudyCheck(arrival=arrival if looks else Arrival.FRESH)


def trained_spec(**space: object) -> StudySpec:
    tree = {
        "study": {"name": "small", "workload": "models.parabola:Parabola"},
        "budget": {"steps": 20},
        "space": {"optimizers": ["sgd", "adam"], **space},
    }
    return parse_spec(tree, origin="test")


@pytest.mark.parametrize(
    ("arrival", "asked", "regime", "said"),
    [
        (Arrival.TRAINED, None, "finetune", "The model arrives with trained weights"),
        (Arrival.TRAINED, "finetune", "finetune", None),
        (Arrival.TRAINED, "scratch", "scratch", None),
        (Arrival.FRESH, None, "scratch", None),
        (Arrival.FRESH, "finetune", "finetune", None),
        (Arrival.REPEATED, None, "scratch", "as if its code seeded itself"),
        (Arrival.REPEATED, "finetune", "finetune", None),
    ],
)
def test_the_regime_follows_from_the_model_unless_the_file_names_it_and_that_is_said(
    database: Database, arrival: Arrival, asked: str | None, regime: str, said: str | None
) -> None:
    spec = trained_spec() if asked is None else trained_spec(regime=asked)
    opened = open_study(lambda create: database, spec, check=seeing(arrival))
    assert opened.study.spec.space.regime == regime
    high = {"finetune": 1e-3, "scratch": 0.3}[regime]
    assert opened.study.spec.to_json()["optimizer"]["adam"]["lr"]["high"] == high
    lines = [line for line in opened.announcements() if line.startswith("The model")]
    assert len(lines) == (said is not None)
    assert said is None or said in lines[0]


@pytest.mark.parametrize(
    ("seen", "pruner", "pattern", "said"),
    [
        (True, "halving", None, "such as 'val_loss=0.31 epoch=3'"),
        (True, "halving", r"E (?P<epoch>\d+) L (?P<val_loss>\S+)", r"finds as (?P<epoch>\d+)"),
        (True, "none", None, None),
        (False, "halving", None, None),
    ],
)
def test_a_command_of_which_no_trial_can_be_pruned_is_warned_of(
    database: Database, seen: bool, pruner: str, pattern: str | None, said: str | None
) -> None:
    tree = {
        "study": {"name": "small", "command": ["python", "train.py"]},
        "budget": {"epochs": 8},
        "search": {"pruner": pruner},
        "process": {} if pattern is None else {"pattern": pattern},
    }
    check = StudyCheck(ends_at_once=seen)
    spec = parse_spec(tree, origin="test")
    opened = open_study(lambda create: database, spec, check=lambda *_: check)
    lines = [line for line in opened.announcements() if line.startswith("Warning: no trial can be")]
    assert len(lines) == (said is not None)
    assert said is None or said in lines[0]


def test_a_study_keeps_its_regime_when_its_file_is_run_again(database: Database) -> None:
    def connect(create: bool) -> Database:
        return database

    first = open_study(connect, trained_spec(), check=seeing(Arrival.TRAINED))
    again = open_study(connect, trained_spec())
    assert again.study.spec == first.study.spec
    with pytest.raises(SpecError, match=r"space\.regime: finetune in the database, scratch now"):
        open_study(connect, trained_spec(regime="scratch"))


def test_a_study_of_an_older_version_counts_as_from_scratch(database: Database) -> None:
    spec = trained_spec().resolve()
    older = spec.model_copy(update={"space": spec.space.model_copy(update={"regime": None})})
    Studies(database).create(older)
    again = open_study(lambda create: database, trained_spec())
    assert not again.created
    assert again.study.spec.space.regime == "scratch"


def test_trials_follow_full_trials_where_the_file_does_not_say(database: Database) -> None:
    opened, budget = reopen(database, {"full_trials": 20}, {"full_trials": 30})
    assert (opened.changed, opened.kept) == ({"full_trials": 30, "trials": 150}, {})
    assert (budget.full_trials, budget.trials) == (30, 150)
    lines = list(opened.announcements())
    assert lines == [
        "Study 'small' now has a budget of 30 full trials",
        "Study 'small' now has a budget of 150 trials",
    ]


def test_full_trials_are_lowered_by_a_setting_alone(database: Database) -> None:
    opened, budget = reopen(database, {"full_trials": 20}, {"full_trials": 10})
    assert (opened.changed, opened.kept) == ({}, {"full_trials": (20, 10)})
    opened, budget = reopen(
        database, {"full_trials": 20}, {"full_trials": 10}, "budget.full_trials"
    )
    assert (opened.changed, opened.kept) == ({"full_trials": 10, "trials": 50}, {})
    assert (budget.full_trials, budget.trials) == (10, 50)


def test_written_trials_do_not_follow_full_trials(database: Database) -> None:
    opened, budget = reopen(
        database, {"full_trials": 20, "trials": 40}, {"full_trials": 30, "trials": 40}
    )
    assert opened.changed == {"full_trials": 30}
    assert budget.trials == 40


def test_stop_is_changed_by_a_setting_and_a_file_only_has_a_study_go_on(
    database: Database,
) -> None:
    opened, budget = reopen(database, {}, {"stop": "auto"})
    assert (opened.changed, opened.kept) == ({}, {"stop": ("never", "auto")})
    opened, budget = reopen(database, {}, {"stop": "auto"}, "budget.stop")
    assert (list(opened.announcements()), budget.stop) == (
        ["Study 'small' now has stop = auto"],
        "auto",
    )
    opened, budget = reopen(database, {}, {"stop": "never"})
    assert (opened.changed, budget.stop) == ({"stop": "never"}, "never")
