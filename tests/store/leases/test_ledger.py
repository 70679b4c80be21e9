from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from tests.conftest import MakeSpec
from tests.store.leases.test_single_ledger import (
    Bench,
    Interrupted,
    everybody_died,
    ledger_of,
    nobody_died,
)
from tests.store.optuna.test_storage import count_statements
from tests.store.renaming import rename
from tuner.domain.states import StudyState
from tuner.domain.trials import Outcome, TrialRecord
from tuner.errors import LeaseLostError, NotFoundError, SpecError, UnavailableError
from tuner.search import Proposer
from tuner.store import (
    Database,
    LaneEnding,
    LaneReport,
    Lease,
    Ledger,
    Studies,
    open_database,
    read_curves,
    read_records,
)
from tuner.store.control import set_state
from tuner.store.events import read_events
from tuner.store.leases.reruns import rerun
from tuner.store.leases.single_ledger import MAX_ATTEMPTS, is_done
from tuner.store.records import read_record


class Cohorts(Bench):
    """Some workers on one study, each with many trials at once."""

    def proposals(self, count: int) -> list[FrozenTrial]:
        return [self.proposer.propose() for _ in range(count)]

    def start_many(self, ledger: Ledger, count: int) -> list[Lease]:
        return ledger.start_many(self.proposer.defaults(), self.proposals(count))

    def read(self, number: int) -> TrialRecord:
        found = read_record(self.database, self.study, number)
        assert found is not None
        return found

    def kinds(self, number: int) -> list[str]:
        return [event.kind for event in read_events(self.database, self.study, number)]


@pytest.fixture
def cohorts(database: Database, make_spec: MakeSpec) -> Cohorts:
    budget = {"trials": 12, "steps": 20, "evaluations": 4}
    return Cohorts(database, Studies(database).create(make_spec(budget=budget)))


def evaluated(those: list[Lease], progress: int, value: float = 0.5) -> list[LaneReport]:
    loss = [(progress, "loss", value)]
    return [LaneReport(lease, progress, value + lease.number, loss) for lease in those]


def complete(those: list[Lease]) -> list[LaneEnding]:
    return [
        LaneEnding(lease, TrialState.COMPLETE, float(lease.number), {"steps": 20})
        for lease in those
    ]


def numbers(those: list[Lease]) -> list[int]:
    return [lease.number for lease in those]


def reasons(lost: dict[int, LeaseLostError]) -> dict[int, str]:
    return {number: str(error) for number, error in lost.items()}


def end_elsewhere(cohorts: Cohorts, lease: Lease) -> None:
    storage = cohorts.database.storage
    optuna.load_study(study_name="small", storage=storage).tell(lease.number, state=TrialState.FAIL)


def test_defaults_start_first_and_proposals_fill_the_group(cohorts: Cohorts) -> None:
    leases = cohorts.start_many(cohorts.ledger("a"), 4)
    assert numbers(leases) == [0, 1, 2, 3]
    assert len({lease.token for lease in leases}) == 4
    records = read_records(cohorts.database, cohorts.study)
    assert [record.proposal.preset for record in records] == ["default", "default", None, None]
    assert [cohorts.kinds(number) for number in range(4)] == [["started"]] * 4


def test_defaults_that_one_group_has_no_room_for_start_with_the_next(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    assert numbers(cohorts.start_many(ledger, 1)) == [0]
    assert numbers(cohorts.start_many(cohorts.ledger("b"), 2)) == [1, 2]
    presets = [cohorts.read(number).proposal.preset for number in range(3)]
    assert presets == ["default", "default", None]


def test_proposals_start_in_their_order(cohorts: Cohorts) -> None:
    proposals = cohorts.proposals(5)
    leases = cohorts.ledger("a").start_many([], proposals)
    found = [cohorts.read(lease.number).proposal.params for lease in leases]
    assert found == [proposal.params for proposal in proposals]


def test_group_takes_what_is_left_of_the_budget(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    sizes = [len(cohorts.start_many(ledger, 5)) for _ in range(4)]
    assert sizes == [5, 5, 2, 0]
    assert [r.number for r in read_records(cohorts.database, cohorts.study)] == list(range(12))


def test_budget_is_exact_when_many_workers_start_groups_at_once(
    database: Database, make_spec: MakeSpec
) -> None:
    study = Studies(database).create(make_spec(budget={"trials": 50, "steps": 20}))
    proposer = Proposer(study.spec, seed=0)
    defaults, proposals = proposer.defaults(), [proposer.propose() for _ in range(7)]

    def start_all(index: int) -> list[int]:
        own = open_database(database.url)
        ledger = ledger_of(own, study, f"w{index}")
        started = []
        while leases := ledger.start_many(defaults, proposals):
            started += numbers(leases)
            assert ledger.report_many(5, evaluated(leases, 5)) == {}
            assert ledger.finish_many(complete(leases)) == {}
        own.close()
        return started

    with ThreadPoolExecutor(6) as pool:
        started = [number for own in pool.map(start_all, range(6)) for number in own]
    assert sorted(started) == list(range(50))
    records = read_records(database, study)
    assert [record.number for record in records] == list(range(50))
    assert [record.is_default for record in records] == [True, True] + [False] * 48
    assert {record.outcome for record in records} == {Outcome.COMPLETE}
    assert is_done(database, study)


def test_nothing_starts_in_a_paused_or_stopped_study(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    for state in (StudyState.PAUSED, StudyState.STOPPED):
        set_state(cohorts.database, cohorts.study, state)
        assert cohorts.start_many(ledger, 3) == []
    set_state(cohorts.database, cohorts.study, StudyState.RUNNING)
    assert len(cohorts.start_many(ledger, 3)) == 3


def test_reports_and_ends_of_a_group_are_read_back(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    leases = cohorts.start_many(ledger, 3)
    for progress in (5, 10):
        assert ledger.report_many(progress, evaluated(leases, progress)) == {}
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    values = (0.5, 1.5, None)
    endings = [
        LaneEnding(lease, state, value, {"steps": 10, "lane": lease.number})
        for lease, state, value in zip(leases, states, values, strict=True)
    ]
    assert ledger.finish_many(endings) == {}
    records = read_records(cohorts.database, cohorts.study)
    assert [record.outcome.name for record in records] == ["COMPLETE", "PRUNED", "FAILED"]
    assert [record.value for record in records] == list(values)
    for number, record in enumerate(records):
        assert dict(record.evaluations) == {5: 0.5 + number, 10: 0.5 + number}
        assert record.attributes["lane"] == number
        curves = read_curves(cohorts.database, cohorts.study, number)
        assert curves == {"loss": {5: 0.5, 10: 0.5}}


def test_trial_without_an_evaluation_tells_only_what_it_logged(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    first, second = cohorts.start_many(ledger, 2)
    reports = [LaneReport(first, logged=[(3, "loss", 2.0)]), LaneReport(second, 3, 0.5)]
    assert ledger.report_many(3, reports) == {}
    assert [dict(cohorts.read(number).evaluations) for number in (0, 1)] == [{}, {3: 0.5}]
    assert read_curves(cohorts.database, cohorts.study, 0) == {"loss": {3: 2.0}}


def test_evaluation_without_a_value_is_refused() -> None:
    with pytest.raises(SpecError, match="Trial 7 has no value at 5: report the metric"):
        LaneReport(Lease(7, "token", 1), progress=5)


def test_reports_told_twice_are_harmless(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    leases = cohorts.start_many(ledger, 3)
    for value in (0.75, 0.5):
        assert ledger.report_many(5, evaluated(leases, 5, value)) == {}
    for number in range(3):
        assert dict(cohorts.read(number).evaluations) == {5: 0.5 + number}
        assert read_curves(cohorts.database, cohorts.study, number) == {"loss": {5: 0.5}}


Write = Callable[[Ledger, list[Lease]], dict[int, LeaseLostError]]


@pytest.mark.parametrize(
    "write",
    [
        lambda ledger, leases: ledger.renew_many(leases, 5),
        lambda ledger, leases: ledger.report_many(5, evaluated(leases, 5)),
        lambda ledger, leases: ledger.saved_many(leases, 5),
        lambda ledger, leases: ledger.finish_many(complete(leases)),
    ],
    ids=["renew", "report", "saved", "finish"],
)
def test_lost_trials_are_told_why_and_the_others_are_written(
    cohorts: Cohorts, write: Write
) -> None:
    ledger, other = cohorts.ledger("a"), cohorts.ledger("b")
    leases = cohorts.start_many(ledger, 4)
    cohorts.ledger("a").release(leases[0])  # behind the back of its holder
    taken = other.take_over(nobody_died)
    assert taken is not None
    assert taken.number == 0
    end_elsewhere(cohorts, leases[2])
    assert reasons(write(ledger, leases)) == {
        0: "Trial 0 belongs to another worker by now.",
        2: "Trial 2 was ended, or deleted, by somebody else.",
    }
    assert other.renew_many([taken], 1) == {}
    assert dict(cohorts.read(0).evaluations) == {}
    assert cohorts.read(2).outcome is Outcome.FAILED
    assert dict(cohorts.read(2).evaluations) == {}


def test_one_trial_ended_elsewhere_keeps_no_other_from_its_end(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    leases = cohorts.start_many(ledger, 3)
    end_elsewhere(cohorts, leases[1])
    assert list(ledger.finish_many(complete(leases))) == [1]
    records = read_records(cohorts.database, cohorts.study)
    assert [record.outcome.name for record in records] == ["COMPLETE", "FAILED", "COMPLETE"]
    assert [record.value for record in records] == [0.0, None, 2.0]
    assert "steps" not in records[1].attributes
    assert ledger.take_over(nobody_died) is None  # what is left of its lease goes with this
    assert list(ledger.finish_many(complete(leases))) == [0, 1, 2]
    assert cohorts.read(0).value == 0.0


def test_group_goes_on_when_its_study_is_renamed(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    leases = cohorts.start_many(ledger, 3)
    assert ledger.report_many(5, evaluated(leases, 5)) == {}
    assert rename(cohorts.database, cohorts.study, "renamed") == 201
    assert ledger.report_many(10, evaluated(leases, 10)) == {}
    assert ledger.finish_many(complete(leases[:2])) == {}
    assert numbers(cohorts.start_many(ledger, 2)) == [3, 4]
    records = read_records(cohorts.database, cohorts.study)
    assert [len(record.evaluations) for record in records] == [2, 2, 2, 0, 0]
    assert [record.value for record in records] == [0.0, 1.0, None, None, None]


def test_what_a_copy_lacks_of_a_group_is_told_again(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    leases = cohorts.start_many(ledger, 2)
    storage = cohorts.database.storage
    optuna.copy_study(
        from_study_name="small", from_storage=storage, to_storage=storage, to_study_name="renamed"
    )
    too_late = cohorts.start_many(ledger, 1)
    ledger.report_many(5, evaluated([*leases, *too_late], 5))
    storage.delete_study(cohorts.study.study_id)
    lost = ledger.report_many(10, evaluated([*leases, *too_late], 10))
    assert list(lost) == [2]
    for number in (0, 1):
        expected = {5: 0.5 + number, 10: 0.5 + number}
        assert dict(cohorts.read(number).evaluations) == expected


def test_group_of_a_deleted_study_is_lost(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    leases = cohorts.start_many(ledger, 2)
    Studies(cohorts.database).delete(cohorts.study)
    assert reasons(ledger.finish_many(complete(leases))) == {
        number: f"Trial {number} was deleted, and its study with it." for number in (0, 1)
    }
    with pytest.raises(NotFoundError, match="deleted"):
        cohorts.start_many(ledger, 2)


def test_released_group_is_continued_together(cohorts: Cohorts) -> None:
    first, second = cohorts.ledger("a"), cohorts.ledger("b")
    leases = cohorts.start_many(first, 3)
    assert first.saved_many(leases, 5) == {}
    first.release_many(leases)
    taken = second.take_over_many(nobody_died, at_most=8)
    assert [(lease.number, lease.attempt) for lease in taken] == [(0, 1), (1, 1), (2, 1)]
    assert [lease.checkpoint for lease in taken] == [lease.token for lease in leases]
    assert not {lease.token for lease in taken} & {lease.token for lease in leases}
    # What they go on from is not known before somebody has read it.
    assert [cohorts.kinds(number) for number in range(3)] == [["started", "released"]] * 3
    assert second.tell_many(taken[:2], "continued", "at step 5") == {}
    assert second.tell_many(taken[2:], "started_over", "its file is gone") == {}
    assert reasons(first.tell_many(leases, "continued", "at step 5")).keys() == {0, 1, 2}
    told = [cohorts.kinds(number)[2:] for number in range(3)]
    assert told == [["continued"], ["continued"], ["started_over"]]
    assert list(first.renew_many(leases, 6)) == [0, 1, 2]
    assert second.finish_many(complete(taken)) == {}


def test_only_trials_at_the_step_of_the_first_are_taken(cohorts: Cohorts) -> None:
    first, second = cohorts.ledger("a"), cohorts.ledger("b")
    leases = cohorts.start_many(first, 6)
    assert first.renew_many(leases[1::2], 10) == {}
    first.release_many(leases)
    assert numbers(second.take_over_many(nobody_died, at_most=2)) == [0, 2]
    assert numbers(second.take_over_many(nobody_died, at_most=8)) == [1, 3, 5]
    assert numbers(second.take_over_many(nobody_died, at_most=8)) == [4]
    assert second.take_over_many(nobody_died, at_most=8) == []


def test_trials_whose_worker_lives_stay_with_it(cohorts: Cohorts) -> None:
    alive, dead, heir = cohorts.ledger("alive"), cohorts.ledger("dead"), cohorts.ledger("heir")
    cohorts.start_many(alive, 2)
    left = cohorts.start_many(dead, 2)
    taken = heir.take_over_many(lambda worker: worker == "dead", at_most=8)
    assert [(lease.number, lease.attempt) for lease in taken] == [
        (lease.number, 2) for lease in left
    ]
    assert cohorts.kinds(left[0].number) == ["started", "taken_over"]


def test_expired_group_is_left_alone_while_nobody_could_have_renewed_it(cohorts: Cohorts) -> None:
    cohorts.start_many(cohorts.ledger("a", lease_s=-1), 2)
    heir = cohorts.ledger("b")
    assert heir.take_over_many(nobody_died, expired=False, at_most=8) == []
    assert len(heir.take_over_many(nobody_died, at_most=8)) == 2


def test_of_many_who_take_over_one_group_each_trial_goes_to_one(cohorts: Cohorts) -> None:
    cohorts.start_many(cohorts.ledger("a", lease_s=-1), 8)

    def take(index: int) -> list[int]:
        own = open_database(cohorts.database.url)
        ledger = ledger_of(own, cohorts.study, f"t{index}")
        taken = numbers(ledger.take_over_many(nobody_died, at_most=3))
        own.close()
        return taken

    with ThreadPoolExecutor(4) as pool:
        taken = [number for own in pool.map(take, range(4)) for number in own]
    assert len(taken) == len(set(taken))
    rest = cohorts.ledger("b").take_over_many(nobody_died, at_most=8)
    assert sorted([*taken, *numbers(rest)]) == list(range(8))


def test_trials_that_kill_every_worker_fail_and_the_others_go_on(cohorts: Cohorts) -> None:
    cohorts.start_many(cohorts.ledger("w0"), 2)
    for attempt in range(1, MAX_ATTEMPTS):
        taken = cohorts.ledger(f"w{attempt}").take_over_many(everybody_died, at_most=8)
        assert len(taken) == 2
    fresh = cohorts.start_many(cohorts.ledger("w9"), 1)
    heir = cohorts.ledger("heir")
    assert numbers(heir.take_over_many(everybody_died, at_most=2)) == numbers(fresh)
    for number in (0, 1):
        failed = cohorts.read(number)
        assert failed.outcome is Outcome.FAILED
        first, *history = failed.attributes["error"].splitlines()
        assert first == "WorkerDied: 3 workers died or hung on it; none got past step 0."
        assert len(history) == MAX_ATTEMPTS + 1  # and a remedy
        assert cohorts.kinds(number)[-1] == "failed_attempts"


def test_paused_study_gives_no_group_out(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    ledger.release_many(cohorts.start_many(ledger, 3))
    set_state(cohorts.database, cohorts.study, StudyState.PAUSED)
    assert ledger.take_over_many(nobody_died, at_most=8) == []
    set_state(cohorts.database, cohorts.study, StudyState.RUNNING)
    assert len(ledger.take_over_many(nobody_died, at_most=8)) == 3


def test_group_left_behind_in_a_stopped_study_ends_with_what_it_has(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("dead")
    leases = cohorts.start_many(ledger, 3)
    ledger.report_many(5, evaluated(leases, 5, value=2.0))
    ledger.report_many(10, evaluated(leases[:2], 10, value=1.0))
    set_state(cohorts.database, cohorts.study, StudyState.STOPPED)
    assert cohorts.ledger("heir").take_over_many(everybody_died, at_most=8) == []
    records = read_records(cohorts.database, cohorts.study)
    assert [(record.outcome, record.value) for record in records] == [
        (Outcome.PRUNED, 1.0),
        (Outcome.PRUNED, 2.0),
        (Outcome.PRUNED, 4.0),
    ]
    assert [record.attributes["steps"] for record in records] == [10, 10, 5]
    assert is_done(cohorts.database, cohorts.study)


def test_rerun_is_taken_like_what_was_released_at_the_start(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    leases = cohorts.start_many(ledger, 3)
    ledger.finish_many(complete(leases[:1]))
    ledger.release_many(leases[1:])
    rerun(cohorts.database, cohorts.study, 0)
    taken = ledger.take_over_many(nobody_died, at_most=8)
    assert [(lease.number, lease.attempt) for lease in taken] == [(1, 1), (2, 1), (3, 1)]
    assert cohorts.kinds(3) == ["rerun", "started"]


def test_group_that_was_not_heard_of_is_taken_by_the_same_worker(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    held = cohorts.start_many(ledger, 2)
    ledger._database = Interrupted(cohorts.database.url, cohorts.database.storage)
    with pytest.raises(UnavailableError):
        cohorts.start_many(ledger, 3)
    with pytest.raises(UnavailableError):
        ledger.report_many(5, evaluated(held, 5))
    ledger._database = cohorts.database
    assert cohorts.ledger("b").take_over_many(nobody_died, at_most=8) == []
    taken = ledger.take_over_many(nobody_died, at_most=8)
    assert [(lease.number, lease.attempt) for lease in taken] == [(2, 1), (3, 1), (4, 1)]
    assert ledger.report_many(5, evaluated([*held, *taken], 5)) == {}
    assert ledger.take_over_many(nobody_died, at_most=8) == []


def test_write_that_fails_for_one_is_none_for_all(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    leases = cohorts.start_many(ledger, 2)
    good, bad = complete(leases)
    with pytest.raises(TypeError):
        ledger.finish_many([good, replace(bad, attributes={"not json": object()})])
    assert [cohorts.read(number).outcome for number in (0, 1)] == [Outcome.RUNNING] * 2
    assert ledger.finish_many([good, bad]) == {}


def test_empty_groups_are_nothing(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    assert cohorts.start_many(ledger, 0) == []
    assert ledger.report_many(5, []) == {}
    assert ledger.renew_many([], 5) == {}
    assert ledger.saved_many([], 5) == {}
    assert ledger.finish_many([]) == {}
    ledger.release_many([])
    assert ledger.take_over_many(nobody_died, at_most=8) == []
    assert read_records(cohorts.database, cohorts.study) == []


def count_operations(cohorts: Cohorts, ledger: Ledger, heir: Ledger, size: int) -> dict[str, int]:
    counts = {}

    @contextlib.contextmanager
    def counted(name: str) -> Iterator[None]:
        with count_statements(cohorts.database.engine) as statements:
            yield
        counts[name] = len([each for each in statements if not each.startswith("BEGIN")])

    proposals = cohorts.proposals(size)
    with counted("start"):
        leases = ledger.start_many([], proposals)
    with counted("report"):
        ledger.report_many(5, evaluated(leases, 5))
    with counted("renew"):
        ledger.renew_many(leases, 6)
    with counted("saved"):
        ledger.saved_many(leases, 6)
    with counted("release"):
        ledger.release_many(leases)
    with counted("take over"):
        taken = heir.take_over_many(nobody_died, at_most=64)
    assert len(taken) == size
    with counted("lost"):
        assert len(ledger.report_many(7, evaluated(leases, 7))) == size
    with counted("tell"):
        heir.tell_many(taken, "continued", "at step 5")
    with counted("finish"):
        heir.finish_many(complete(taken))
    return counts


def test_operation_costs_as_many_statements_for_one_trial_as_for_many(
    database: Database, make_spec: MakeSpec
) -> None:
    study = Studies(database).create(make_spec(budget={"trials": 200, "steps": 20}))
    cohorts = Cohorts(database, study)
    ledger, heir = cohorts.ledger("a"), cohorts.ledger("b")
    ledger.touch()
    heir.touch()
    of_one = count_operations(cohorts, ledger, heir, 1)
    assert of_one == count_operations(cohorts, ledger, heir, 40)
    few = {
        "report": 3,
        "renew": 1,
        "saved": 1,
        "release": 3,
        "take over": 7,
        "tell": 2,
        "finish": 5,
    }
    assert (few | {"finish": 5}).items() <= of_one.items()


def test_ids_that_are_other_trials_of_the_group_by_now_are_looked_up_again(
    cohorts: Cohorts,
) -> None:
    ledger = cohorts.ledger("a")
    first, second = leases = cohorts.start_many(ledger, 2)
    held = (ledger._hand[first], ledger._hand[second])
    held[0].trial_id, held[1].trial_id = held[1].trial_id, held[0].trial_id
    assert ledger.report_many(5, evaluated(leases, 5)) == {}
    assert [dict(cohorts.read(number).evaluations) for number in (0, 1)] == [{5: 0.5}, {5: 1.5}]
