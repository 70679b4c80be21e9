from __future__ import annotations

from optuna.trial import TrialState

from tests.conftest import MakeSpec
from tests.store.leases.bench import ledger_of
from tuner.domain.fuse_plan import FusePlan
from tuner.search import Proposer
from tuner.service.study_progress import StudyProgress
from tuner.store import Database, Studies, StudyHandle
from tuner.store.plans import keep_plan


def test_how_trials_train_is_told_once_it_is_known(database: Database, study: StudyHandle) -> None:
    progress = StudyProgress(database, study, "auto")
    assert list(progress.announcements()) == []
    plan = FusePlan(8, trials=study.spec.budget.trials, reason="quicker")
    keep_plan(database, study, "auto on cpu", plan)
    assert list(progress.announcements()) == ["Up to 8 trials as one: quicker."]
    assert list(progress.announcements()) == []
    assert list(StudyProgress(database, study, "off").announcements()) == []


def test_what_finishes_once_the_watch_has_begun_is_news_and_what_was_over_before_is_not(
    database: Database, study: StudyHandle
) -> None:
    ledger, proposer = ledger_of(database, study, "a"), Proposer(study.spec, seed=0)

    def finish_one() -> int:
        lease = ledger.start_one([], proposer.propose())
        assert lease is not None
        ledger.finish_one(lease, TrialState.PRUNED, 0.5, {"steps": 10, "total_steps": 20})
        return lease.number

    finish_one()
    progress = StudyProgress(database, study)
    during = finish_one()
    assert progress.finished == 1
    assert [record.number for record in progress.update()] == [during]
    assert progress.finished == 2


def test_share_done_is_that_of_trials_or_training_whichever_is_more(
    database: Database, make_spec: MakeSpec
) -> None:
    budget = {"trials": 10, "full_trials": 2.0, "steps": 20, "evaluations": 4}
    study = Studies(database).create(make_spec(budget=budget))
    now_s = 0.0
    progress = StudyProgress(database, study, clock=lambda: now_s)
    assert (progress.share_done, progress.used, progress.time_left_s()) == (0.0, 0.0, None)
    ledger, proposer = ledger_of(database, study, "a"), Proposer(study.spec, seed=0)
    lease = ledger.start_one([], proposer.propose())
    assert lease is not None
    ledger.finish_one(lease, TrialState.PRUNED, 0.5, {"steps": 10, "total_steps": 20})
    now_s = 10.0
    list(progress.update())
    assert (progress.share_done, progress.used, progress.time_left_s()) == (0.25, 0.5, 30.0)
