"""How a study begins, with its openings, and how it ends, with its closing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from optuna.trial import FrozenTrial, TrialState

from tests.conftest import MakeSpec
from tests.store.leases.bench import Cohorts, complete, ledger_of, numbers
from tuner.domain.states import StudyState
from tuner.domain.trials import TrialRecord, default_proposal
from tuner.search import Comparer, Proposer
from tuner.store import Database, Ledger, Studies, open_database, read_records
from tuner.store.control import set_state
from tuner.store.leases.reruns import rerun

WORKERS = 6


@pytest.fixture
def opened(database: Database, make_spec: MakeSpec, portfolio: object) -> Cohorts:
    """Returns the workers of a study with three openings."""
    budget = {"trials": 12, "steps": 20, "evaluations": 4}
    space = {"optimizers": ["sgd", "adam"], "schedules": ["constant", "cosine", "linear"]}
    found = Cohorts(database, Studies(database).create(make_spec(budget=budget, space=space)))
    assert len(found.proposer.openings()) == 3
    return found


def closing_of(cohorts: Cohorts, optimizer: str = "adam") -> FrozenTrial:
    return cohorts.proposer.template(default_proposal(cohorts.study.spec, optimizer))


def presets(cohorts: Cohorts) -> list[str | None]:
    return [r.proposal.preset for r in records_of(cohorts)]


def records_of(cohorts: Cohorts) -> list[TrialRecord]:
    return read_records(cohorts.database, cohorts.study)


def extend(cohorts: Cohorts, trials: int) -> None:
    Studies(cohorts.database).extend(cohorts.study, lambda budget: {"trials": trials})


def test_openings_start_first_and_in_their_order(opened: Cohorts) -> None:
    assert numbers(opened.start_some(opened.ledger("a"), 2)) == [0, 1]
    assert numbers(opened.start_some(opened.ledger("b"), 2)) == [2, 3]
    assert presets(opened) == ["portfolio", "portfolio", "portfolio", None]
    params = [r.proposal.params for r in records_of(opened)[:3]]
    assert params == [trial.params for trial in opened.proposer.openings()]


def test_openings_start_once_however_many_workers_ask_at_once(opened: Cohorts) -> None:
    together = Barrier(WORKERS)
    proposals = opened.proposals(WORKERS)

    def start(index: int) -> int:
        own = open_database(opened.database.url)
        ledger = ledger_of(own, opened.study, f"w{index}")
        together.wait()
        started = ledger.start(opened.proposer.openings(), [proposals[index]])
        own.close()
        return len(started)

    with ThreadPoolExecutor(WORKERS) as pool:
        assert list(pool.map(start, range(WORKERS))) == [1] * WORKERS
    assert presets(opened) == ["portfolio"] * 3 + [None] * 3
    started = [r.proposal.params for r in records_of(opened)[:3]]
    assert started == [trial.params for trial in opened.proposer.openings()]


def test_openings_of_an_earlier_study_start_once_and_before_the_portfolio_s(
    database: Database, make_spec: MakeSpec, portfolio: object
) -> None:
    budget = {"trials": 12, "steps": 20, "evaluations": 4}
    params = {"optimizer": "adam", "schedule": "constant", "adam.lr": 0.05}
    start = {"study": "earlier", "trials": 9, "value": 0.5, "openings": [{"params": params}]}
    warm = Cohorts(database, Studies(database).create(make_spec(budget=budget, warm_start=start)))
    for worker in "ab":
        warm.start_some(warm.ledger(worker), 3)
    assert presets(warm) == ["warm_start", "portfolio", "portfolio", "portfolio", None, None]
    assert records_of(warm)[0].proposal.params.items() >= params.items()


def test_opening_run_again_does_not_count_as_one_more(opened: Cohorts) -> None:
    ledger = opened.ledger("a")
    ledger.finish(complete(ledger.start(opened.proposer.openings(), opened.proposals(1))))
    rerun(opened.database, opened.study, 0)
    opened.start_some(ledger, 3)
    assert presets(opened) == ["portfolio", "portfolio", "portfolio", "portfolio", None]


def start_all(ledger: Ledger, cohorts: Cohorts, closing: FrozenTrial | None) -> list[int]:
    """Starts and completes what a study has left but for its closing; returns the groups' sizes."""
    sizes = []
    openings = cohorts.proposer.openings()
    while started := ledger.start(openings, cohorts.proposals(5), closing=closing):
        sizes.append(len(started))
        assert ledger.finish(complete(started)) == {}
    return sizes


def test_last_trial_is_the_closing(opened: Cohorts) -> None:
    ledger, closing = opened.ledger("a"), closing_of(opened)
    assert start_all(ledger, opened, closing) == [5, 5, 1]
    assert numbers(ledger.close(closing)) == [11]
    assert presets(opened) == ["portfolio"] * 3 + [None] * 8 + ["default"]
    last = records_of(opened)[-1]
    assert (last.optimizer, last.is_default) == ("adam", True)
    assert ledger.close(closing_of(opened, "sgd")) == []


def test_where_nothing_is_complete_the_last_trial_is_as_any_other(opened: Cohorts) -> None:
    start_all(opened.ledger("a"), opened, None)
    assert presets(opened) == ["portfolio"] * 3 + [None] * 9


def test_closing_waits_until_no_other_trial_trains(opened: Cohorts) -> None:
    ledger, closing = opened.ledger("a"), closing_of(opened)
    trained = ledger.start([], opened.proposals(2))
    ledger.pause(complete(trained[:1]), step=10, progress=2)
    assert opened.ledger("b").close(closing) == []
    ledger.finish(complete(trained[1:]))
    assert numbers(opened.ledger("b").close(closing)) == [2]


def test_configuration_that_has_started_is_no_closing(opened: Cohorts) -> None:
    ledger, closing = opened.ledger("a"), closing_of(opened)
    # As any trial may happen to be, and as earlier versions of tuner began a study.
    ledger.finish(complete(ledger.start([], [closing], closing=closing_of(opened, "sgd"))))
    start_all(ledger, opened, closing)
    assert ledger.close(closing) == []
    assert presets(opened) == ["default"] + ["portfolio"] * 3 + [None] * 8


def test_longer_study_closes_anew_only_if_another_optimizer_leads(opened: Cohorts) -> None:
    ledger = opened.ledger("a")
    for trials, leader in ((12, "adam"), (14, "adam"), (16, "sgd")):
        extend(opened, trials)
        start_all(ledger, opened, closing_of(opened, leader))
        ledger.finish(complete(ledger.close(closing_of(opened, leader))))
    defaults = [r for r in records_of(opened) if r.is_default]
    assert [(r.number, r.optimizer) for r in defaults] == [(11, "adam"), (15, "sgd")]


def test_study_with_nothing_left_to_try_closes_before_its_budget_is_used_up(
    opened: Cohorts,
) -> None:
    ledger, closing = opened.ledger("a"), closing_of(opened)
    openings = opened.proposer.openings()
    ledger.finish(complete(ledger.start(openings, [], 8, closing=closing)))
    assert ledger.start(openings, [], 8, closing=closing) == []
    ledger.exhaust("all have been tried")
    assert numbers(ledger.close(closing)) == [3]
    assert presets(opened) == ["portfolio"] * 3 + ["default"]


@pytest.mark.parametrize("state", [StudyState.PAUSED, StudyState.STOPPED])
def test_study_that_does_not_run_does_not_close(opened: Cohorts, state: StudyState) -> None:
    set_state(opened.database, opened.study, state)
    assert opened.ledger("a").close(closing_of(opened)) == []


def test_closing_starts_once_however_many_workers_ask_at_once(opened: Cohorts) -> None:
    together, closing = Barrier(WORKERS), closing_of(opened)

    def close(index: int) -> int:
        own = open_database(opened.database.url)
        ledger = ledger_of(own, opened.study, f"w{index}")
        together.wait()
        closed = ledger.close(closing)
        own.close()
        return len(closed)

    with ThreadPoolExecutor(WORKERS) as pool:
        assert sorted(pool.map(close, range(WORKERS))) == [0] * (WORKERS - 1) + [1]
    assert presets(opened).count("default") == 1


def test_budget_with_a_closing_is_exact_however_many_workers_start_groups(
    database: Database, make_spec: MakeSpec, portfolio: object
) -> None:
    study = Studies(database).create(make_spec(budget={"trials": 50, "steps": 20}))
    proposer = Proposer(study.spec, seed=0)
    openings, proposals = proposer.openings(), [proposer.propose() for _ in range(7)]
    closing = proposer.template(default_proposal(study.spec, "sgd"))

    def work(index: int) -> int:
        own = open_database(database.url)
        ledger = ledger_of(own, study, f"w{index}")
        count = 0
        while leases := ledger.start(openings, proposals, closing=closing):
            count += len(leases)
            assert ledger.finish(complete(leases)) == {}
        own.close()
        return count

    with ThreadPoolExecutor(WORKERS) as pool:
        assert sum(pool.map(work, range(WORKERS))) == 49
    last = ledger_of(database, study, "last")
    assert last.finish(complete(last.close(closing))) == {}
    records = read_records(database, study)
    assert [record.number for record in records] == list(range(50))
    found = [record.proposal.preset for record in records]
    assert found == ["portfolio"] * len(openings) + [None] * (49 - len(openings)) + ["default"]
    assert {record.outcome.value for record in records} == {TrialState.COMPLETE.name.lower()}


def comparison(database: Database, make_spec: MakeSpec) -> Cohorts:
    """Returns the workers of a study that compares two optimizers in eight trials."""
    spec = make_spec(
        budget={"trials": 8, "steps": 20, "evaluations": 4},
        space={"optimizers": ["sgd", "adam"]},
        search={"mode": "compare", "pruner": "none"},
    )
    return Cohorts(database, Studies(database).create(spec))


def test_defaults_and_even_draws_open_a_comparison_once(
    database: Database, make_spec: MakeSpec
) -> None:
    found = comparison(database, make_spec)
    comparer = Comparer(found.study.spec, 0)
    started = []
    for worker in "abc":
        ledger = found.ledger(worker)
        started += ledger.start(comparer.openings(), found.proposals(3))
    assert presets(found) == ["default"] * 2 + ["random"] * 4 + [None] * 2
    params = [record.proposal.params for record in records_of(found)[:6]]
    assert params == [trial.params for trial in comparer.openings()]
    assert len(started) == 8


def test_comparison_that_was_given_one_trial_more_can_still_be_read(
    database: Database, make_spec: MakeSpec
) -> None:
    found = comparison(database, make_spec)
    comparer, ledger = Comparer(found.study.spec, 0), found.ledger("a")
    leases = [
        one for _ in range(3) for one in ledger.start(comparer.openings(), found.proposals(3))
    ]
    ledger.finish_one(leases[0], TrialState.FAIL, None, {})
    assert rerun(database, found.study, leases[0].number, extend=True) == len(leases) == 8
    assert Studies(database).refresh(found.study).spec.budget.trials == 9  # not twice as many
